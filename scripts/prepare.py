"""Before `honcho start`: see what is in the way, make the tables and, in a new database, start a first import."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))

import click  # noqa: E402

from workers.cli import main  # noqa: E402
from workers.connections import database  # noqa: E402
from workers.control import runner  # noqa: E402
from workers.processes import preflight  # noqa: E402
from workers.records import schema  # noqa: E402
from workers.sources.registry import get_registry  # noqa: E402


@click.command()
def prepare() -> None:
    """Prepare this folder for `honcho start`."""
    preflight.check()
    applied = schema.migrate([source.model for source in get_registry().values()])
    if "0001_first_tables" in applied:
        with database.connection():
            run = runner.start(who="make run", door="script", send=False)  # the reaper sends it once Redis is up
        click.echo(f"A new database: run {run.id} of {run.source} begins as soon as the workers are up.")


if __name__ == "__main__":
    main(prepare, name="prepare.py")
