"""`migrate`: the tables."""

import click

from workers import database
from workers.cli.door import models
from workers.cli.ending import EXIT_DONE
from workers.cli.printing import AS_JSON, answer, say


@click.command()
@click.option("--create-models", is_flag=True, help="Also create the missing tables of the sources' models.")
@AS_JSON
def migrate(create_models: bool, as_json: bool) -> int:
    """Bring Sluice's tables up to date.

    Any number of processes may do it at once: one does, the others wait. Your own tables are never changed; those that
    are missing are made with --create-models.

    \b
    Examples:
      python -m workers migrate --create-models       a first time
      python -m workers migrate                       after an upgrade

    Next: `worker` and `scheduler` do the work, `run` gives them some.
    """
    applied = database.migrate(models() if create_models else ())
    say(f"applied: {', '.join(applied)}" if applied else "the database is up to date")
    if as_json:
        answer({"applied": applied})
    return EXIT_DONE
