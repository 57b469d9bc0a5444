"""Selects the failed items of a run to retry, and refuses those that cannot be retried, with the reason."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from workers.errors import InvalidTransition, UsageError
from workers.failures import FailureClass
from workers.records import failed_items
from workers.records.tables import ENDED, Run, RunStatus
from workers.reports.failure_groups import failure_groups, known_ids
from workers.text import sheet_cell

#: How many ids or groups of failures a message lists.
_NAMED = 5


@dataclass(frozen=True)
class Wanted:
    """Which failed items to retry: those that match everything given.

    Parameters:
      failure_class(FailureClass | None): Items of this class.
      fingerprint(str | None): Items with this fingerprint.
      external_ids(Sequence[str]): Only these items.
    """

    failure_class: FailureClass | None
    fingerprint: str | None
    external_ids: Sequence[str]

    @classmethod
    def of(cls, failure_class: str | None, fingerprint: str | None, external_ids: Iterable[str]) -> Self:
        """Return the selection that a caller asked for.

        Raises:
          UsageError: There is no such class; the message lists the classes.
        """
        if failure_class and failure_class not in list(FailureClass):
            raise UsageError(f"There is no failure class {failure_class!r}. Known classes: {', '.join(FailureClass)}.")
        return cls(FailureClass(failure_class) if failure_class else None, fingerprint, tuple(map(str, external_ids)))

    @property
    def described(self) -> str:
        """The selection in words, to follow "failed items"; empty where all are selected."""
        text = f" of class {self.failure_class}" if self.failure_class else ""
        text += f" with fingerprint {self.fingerprint}" if self.fingerprint else ""
        return text + (f" with the ids {_first(self.external_ids)}" if self.external_ids else "")


def meant(run_id: int, pasted: Iterable[str]) -> list[str]:
    """Return the ids of the items that a person means; ids pasted from failed.csv can carry its leading quote.

    Raises:
      UsageError: One of them fits two items.
    """
    readings = {text: sheet_cell.read(text) for text in pasted}
    known = known_ids(run_id, {*readings, *readings.values()})
    for text, unmarked in readings.items():
        if text != unmarked and {text, unmarked} <= known:
            raise UsageError(
                f"Run {run_id} has an item {text} and an item {unmarked}, which failed.csv also writes as {text}: "
                f"give {sheet_cell.exact(text)} for the first, {unmarked} for the second"
            )
    return [unmarked if unmarked in known and text not in known else text for text, unmarked in readings.items()]


def refuse(run: Run, wanted: Wanted) -> None:
    """Refuse a retry that is impossible, whatever has failed.

    Raises:
      InvalidTransition: The run was cancelled, or has not begun.
      UsageError: Its items were deleted, or one of the ids is not of a failed item that can be retried.
    """
    if run.status in (RunStatus.CANCELLED, RunStatus.SCHEDULED, RunStatus.PENDING):
        raise InvalidTransition(run.id, run.status, "retried", "Start a new run instead.")
    if run.items_removed_at:
        raise UsageError(
            f"The items of run {run.id} were deleted by retention on {run.items_removed_at:%Y-%m-%d}: start a new run"
        )
    wrong = failed_items.not_retriable(run.id, wanted.external_ids)
    if wrong:
        named = _first([f"{external_id} ({why})" for external_id, why in wrong.items()])
        raise UsageError(f"These items of run {run.id} cannot be retried: {named}")


def refuse_from_start(run: Run) -> None:
    """Refuse to read the list from its start while the run reads it.

    Raises:
      UsageError: The run has not ended.
    """
    if run.status not in ENDED:
        raise UsageError(f"Run {run.id} is {run.status}: only a run that has ended can read its list from the start")


def why_none(run_id: int, wanted: Wanted) -> str:
    """Return that no failed item matches, and which failures there are."""
    groups = failure_groups(run_id)
    none = f"Run {run_id} has no failed item{wanted.described} that can be retried"
    if not groups:
        return none
    if not wanted.described:
        return (
            f"{none}: all were rejected when the list was read, and have no row; the next run reads them again, and so "
            f"does `retry {run_id} --from-start`"
        )
    return f"{none}. Failures: " + _first([f"{g.count} {g.failure_class} ({g.fingerprint})" for g in groups])


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
