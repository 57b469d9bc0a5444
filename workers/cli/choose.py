"""Choose: which run is meant where none is named, because a person mostly has one in mind."""

from typing import Any

from workers.errors import UsageError
from workers.tables import Run

#: How many runs an error lists, where one was to be chosen.
_LISTED = 5


def run(run_id: int | None, verb: str, fits: Any, words: str) -> int:
    """Return the run that was named or, where none was, the only one that fits.

    Parameters:
      run_id(int | None): What was typed.
      verb(str): The command, for the example.
      fits(peewee.Expression): Which runs may be meant.
      words(str): The same in words, after "None is".

    Raises:
      UsageError: None fits, or several do; the message lists them.
    """
    if run_id is not None:
        return run_id
    found = list(Run.select().where(fits).order_by(Run.id.desc()).limit(_LISTED + 1))
    if not found:
        raise UsageError(f"Which run? None is {words}: `python -m workers status` lists the runs")
    if len(found) > 1:
        more = " and others" if len(found) > _LISTED else ""
        listed = ", ".join(f"{run.id} ({run.source}, {run.status})" for run in found[:_LISTED])
        raise UsageError(f"Which run? {listed}{more}: name one, like `{verb} {found[0].id}`")
    return int(found[0].id)
