"""The command `migrate`: creates Sluice's tables, brings them up to date, and creates the models' tables."""

from typing import Any

import click

from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import models
from workers.cli.printing import AS_JSON, answer, say
from workers.connections import database
from workers.records import model_database, schema


@click.command()
@click.option("--create-models", is_flag=True, help="Also create the missing tables of the sources' models.")
@AS_JSON
def migrate(create_models: bool, as_json: bool) -> int:
    """Create Sluice's tables, or bring them up to date.

    Several processes can call it at once: one migrates, the others wait. Your own tables are never altered;
    --create-models creates those that are missing, and names them.

    \b
    Examples:
      python -m workers migrate --create-models       the first time
      python -m workers migrate                       after an upgrade

    Next: start `worker` and `scheduler`; `run` starts an import.
    """
    wanted = models() if create_models else []
    created = _missing(wanted)
    applied = schema.migrate(wanted)
    done = [f"{what}: {', '.join(names)}" for what, names in (("applied", applied), ("created", created)) if names]
    say("; ".join(done) or "the database is up to date")
    if as_json:
        answer({"applied": applied, "created": created})
    return EXIT_DONE


def _missing(wanted: list[Any]) -> list[str]:
    """Return the names of the models' tables that do not exist yet."""
    names = []
    with database.connection():
        for model in wanted:
            with model_database.connected(model):
                names += [] if model.table_exists() else [str(model._meta.table_name)]
    return names
