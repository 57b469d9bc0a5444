"""Retry: which failed items of a run are wanted again, and why some cannot be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from workers.errors import InvalidTransition, UsageError
from workers.failures import FailureClass
from workers.records import failed_items
from workers.records.tables import ENDED, Run, RunStatus
from workers.reports.failure_groups import failure_groups, known_ids
from workers.text import sheet_cell

#: So many ids, or kinds of failures, are named in a sentence.
_NAMED = 5


@dataclass(frozen=True)
class Wanted:
    """Which failed items: those that fit all that is given.

    Parameters:
      failure_class(FailureClass | None): Those filed under it.
      fingerprint(str | None): Those that failed alike.
      external_ids(Sequence[str]): These alone.
    """

    failure_class: FailureClass | None
    fingerprint: str | None
    external_ids: Sequence[str]

    @classmethod
    def of(cls, failure_class: str | None, fingerprint: str | None, external_ids: Iterable[str]) -> Self:
        """Return what a person asked for.

        Raises:
          UsageError: There is no such class; the message names those there are.
        """
        if failure_class and failure_class not in list(FailureClass):
            raise UsageError(f"There is no failure class {failure_class!r}. Known classes: {', '.join(FailureClass)}.")
        return cls(FailureClass(failure_class) if failure_class else None, fingerprint, tuple(map(str, external_ids)))

    @property
    def said(self) -> str:
        """What stands after "failed items" to name them; empty where all are wanted."""
        said = f" of class {self.failure_class}" if self.failure_class else ""
        said += f" with fingerprint {self.fingerprint}" if self.fingerprint else ""
        return said + (f" with the ids {_first(self.external_ids)}" if self.external_ids else "")


def meant(run_id: int, pasted: Iterable[str]) -> list[str]:
    """Return the ids that a person means, who may have taken them out of failed.csv, where some have a mark.

    Raises:
      UsageError: One stands for two items.
    """
    readings = {text: sheet_cell.read(text) for text in pasted}
    known = known_ids(run_id, {*readings, *readings.values()})
    for text, unmarked in readings.items():
        if text != unmarked and {text, unmarked} <= known:
            raise UsageError(
                f"Run {run_id} has an item {text} and an item {unmarked}, which failed.csv writes like that: "
                f"give {sheet_cell.exact(text)} for the one, {unmarked} for the other"
            )
    return [unmarked if unmarked in known and text not in known else text for text, unmarked in readings.items()]


def refuse(run: Run, wanted: Wanted) -> None:
    """Refuse what cannot be, whatever has failed.

    Raises:
      InvalidTransition: The run was called off, or has not begun.
      UsageError: Its items are gone, or one of the ids is none of a failed item that can be tried again.
    """
    if run.status in (RunStatus.CANCELLED, RunStatus.SCHEDULED, RunStatus.PENDING):
        raise InvalidTransition(run.id, run.status, "retried", "Start a new run instead.")
    if run.items_removed_at:
        raise UsageError(
            f"The items of run {run.id} were removed for their age on {run.items_removed_at:%Y-%m-%d}: start a new run"
        )
    wrong = failed_items.not_retriable(run.id, wanted.external_ids)
    if wrong:
        named = _first([f"{external_id} ({why})" for external_id, why in wrong.items()])
        raise UsageError(f"Of run {run.id} these cannot be tried again: {named}")


def refuse_from_start(run: Run) -> None:
    """Refuse to read the list of a run anew that is at it.

    Raises:
      UsageError: The run has not ended.
    """
    if run.status not in ENDED:
        raise UsageError(f"Run {run.id} is {run.status}: only the list of a run that has ended is read from its start")


def why_none(run_id: int, wanted: Wanted) -> str:
    """Say that no failed item fits, and which ones there are."""
    groups = failure_groups(run_id)
    none = f"Run {run_id} has no failed item{wanted.said} that can be tried again"
    if not groups:
        return none
    if not wanted.said:
        return (
            f"{none}: all were refused from the list, and have no row to fill; the next run reads them anew, and so "
            f"does `retry {run_id} --from-start`"
        )
    return f"{none}. There are: " + _first([f"{g.count} {g.failure_class} ({g.fingerprint})" for g in groups])


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
