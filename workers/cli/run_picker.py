"""Picks the run that a command means if RUN was left out: the only one that fits, else an error lists them."""

from typing import Any

from peewee import fn

from workers.errors import UsageError
from workers.records.tables import Run, RunStatus

#: The message if no run fits `last_and_failed`.
NOTHING_FAILED = "Nothing failed in the latest run of any source"
#: How many runs an error lists.
_LISTED = 5


def run(run_id: int | None, verb: str, fits: Any, none: str) -> int:
    """Return the run that was named or, if none was, the only one that fits.

    Parameters:
      run_id(int | None): The number that was typed.
      verb(str): The command, for the example in the error.
      fits(peewee.Expression): Which runs can be meant.
      none(str): The error if there is none: "No run is running".

    Raises:
      UsageError: None fits, or several do; the message lists them.
    """
    if run_id is not None:
        return run_id
    found = list(Run.select().where(fits).order_by(Run.id.desc()).limit(_LISTED + 1))
    if not found:
        raise UsageError(f"{none}: name a run; `python -m workers status` lists them")
    if len(found) > 1:
        more = " and others" if len(found) > _LISTED else ""
        listed = ", ".join(f"{run.id} ({run.source}, {run.status})" for run in found[:_LISTED])
        raise UsageError(f"Which run? {listed}{more}: name one, like `{verb} {found[0].id}`")
    return int(found[0].id)


def last_and_failed() -> Any:
    """Return the condition that a run is the latest of its source and tenant that began, and has failures."""
    other = Run.alias()
    begun = other.status.not_in([RunStatus.SCHEDULED, RunStatus.PENDING])
    last = other.select(fn.MAX(other.id)).where(begun).group_by(other.source, fn.COALESCE(other.tenant, ""))
    failed = (Run.failed_count > 0) | (Run.status == RunStatus.FAILED)
    return Run.id.in_(last) & failed & (Run.status != RunStatus.CANCELLED)
