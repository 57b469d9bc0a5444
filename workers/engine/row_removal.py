"""Removes old rows, the last step of a fresh run: those that were there when it began, and are not in its list.

`fresh_runs` has copied their keys, and each page of the list has dropped the keys of its rows. The rows of the other
keys are deleted when no item of the run is open any more, and only if the list was complete.
"""

import logging

from peewee import PeeweeException

from workers import clock
from workers.connections import database, database_errors
from workers.connections.database_errors import Fault
from workers.engine import deletion_errors, fresh_runs
from workers.engine.fresh_runs import FreshRows
from workers.errors import SluiceError
from workers.messaging import broker
from workers.records import model_database, old_rows, run_completion
from workers.records.import_status import item_type
from workers.records.run_completion import Removed
from workers.records.tables import HAS_FAILED, ItemStatus, Removal, RemovalState, Run, RunItem
from workers.settings import get_settings
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.text.error_text import describe, message_of

log = logging.getLogger(__name__)

#: Rows that are queried, and removed, in one transaction.
_REMOVED = 500

_AGAIN = "start a new run with --fresh"


class _Stopped(Exception):
    """The run was paused or cancelled, or another process has the lease of its removal."""


def work(run: Run) -> Removed | None:
    """Remove what a fresh run may remove, for the length of a turn; then its finalize message is sent again.

    Returns:
      Removed | None: The result; None while an item of the run is open, or rows are left to be removed.

    *Warning:* if the model is on another database than Sluice's tables, a process that dies between the two
    transactions has removed rows that are not counted: at most 500.
    """
    if not run_completion.has_nothing_open(run):
        return None
    removal = old_rows.get(run.id)
    if removal and removal.state == RemovalState.OVER and not removal.reason:
        return Removed()  # the timeline has the result already: the run has completed before, and was retried
    try:
        source = get_registry()[run.source]
        why = _why_nothing(run, source, removal)
    except SluiceError as error:
        why = str(error)
    if why:
        return _nothing_more(removal, why)
    taken = old_rows.take(run.id, get_settings().lane_lease_seconds)
    return _remove_for_a_turn(run, source, taken) if taken else None


def _nothing_more(removal: Removal | None, why: str) -> Removed:
    if removal and removal.removed_count:
        return Removed("removed", f"{_gone(removal.removed_count)}, and no more: {why}")
    return Removed("nothing removed", why)


# --- may anything be removed?


def _why_nothing(run: Run, source: ImportSource, removal: Removal | None) -> str:
    """Return why a run may remove nothing; empty if it may.

    Raises:
      ConfigurationError: As `fresh_runs.refuse`.
    """
    fresh_runs.refuse(source, run.tenant)
    if removal is None or removal.state == RemovalState.COPYING:
        return f"it is not known which rows were there when this run began; {_AGAIN}"
    if removal.state == RemovalState.OVER:
        return f"{removal.reason}; {_AGAIN}"
    if old_rows.are_there(run.id) and (other := fresh_runs.other_active(run, source)):
        return f"run {other.id} of {other.source}, on the same table, is {other.status}; {_AGAIN}"
    return _why_list_is_incomplete(run) if removal.state == RemovalState.COPIED else ""


def _why_list_is_incomplete(run: Run) -> str:
    """Return why a list that was read to its end does not show which rows are gone; empty if it does."""
    came = run.total_count or 0
    without_a_row = RunItem.select().where(RunItem.run_id == run.id, RunItem.item_id.is_null())
    if run.failed_count and (refused := without_a_row.where(HAS_FAILED).count()):
        return f"{_items(refused)} of the list could not become a row, and may be one that is here"
    if run.skipped_count and (skipped := without_a_row.where(RunItem.status == ItemStatus.SKIPPED).count()):
        return f"{_items(skipped)} of the list skipped by the source may be a row that is here"
    if run.metadata.get("total_changed"):
        return "the API stated another total while the list was read: a row may have slipped to a page that was read"
    stated = run.metadata.get("last_total")
    if stated is not None and stated != came:
        return f"the API stated a total of {stated:,}, and {_items(came)} came"
    if not came and not run.options.get("even_if_empty") and old_rows.are_there(run.id):
        return "the list was empty. If it should be, start a new run with --fresh --even-if-empty"
    return ""


# --- the removal


def _remove_for_a_turn(run: Run, source: ImportSource, removal: Removal) -> Removed | None:
    until = clock.monotonic() + get_settings().turn_seconds
    try:
        rows = FreshRows.of(source, run)
        with model_database.connected(rows.model):
            left = old_rows.left(run.id)
            while True:
                while copied := old_rows.after(removal, _REMOVED):
                    _remove(removal, rows, copied)
                    if (
                        clock.monotonic() > until
                        or clock.stop_requested.is_set()
                        or fresh_runs.other_active(run, source)
                    ):
                        broker.send("finalize", run.id)
                        return None
                before, left = left, old_rows.left(run.id)
                if not 0 < left < before:  # else a row that referred to another can be gone since
                    break
                old_rows.rewind(removal)
        return _summary(run, item_type(rows.model))
    except _Stopped:
        return None
    except Exception as error:
        if database.is_away(error):
            raise
        return _failure(run, error)
    finally:
        old_rows.give_back(removal)


def _remove(removal: Removal, rows: FreshRows, copied: dict[str, str]) -> None:
    """Remove rows together; if the database refuses one of them, by halves, each half in a transaction of its own.

    A savepoint is not enough: a deferred constraint is checked when the transaction ends.
    """
    reason = None
    try:
        _delete(removal, rows, copied)
    except PeeweeException as error:
        if not deletion_errors.is_refusal(error) and database_errors.classify(error) not in (
            Fault.TIMEOUT,
            Fault.STATEMENT,
        ):
            raise
        if len(copied) > 1:
            for half in _halves(copied):
                _remove(removal, rows, half)
            return
        reason = deletion_errors.explain(error, rows.model)
    if not old_rows.advance(removal, next(reversed(copied)), get_settings().lane_lease_seconds, reason):
        raise _Stopped


def _halves(copied: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    pairs, middle = list(copied.items()), len(copied) // 2
    return dict(pairs[:middle]), dict(pairs[middle:])


def _delete(removal: Removal, rows: FreshRows, copied: dict[str, str]) -> None:
    if database.is_ours(rows.model):
        with database.db.atomic():
            _hold_lease(removal)
            old_rows.drop(removal, list(copied), rows.delete(copied, lambda: old_rows.still(removal, copied)))
        return
    with database.db.atomic():
        _hold_lease(removal)
    with rows.model._meta.database.atomic():
        count = rows.delete(copied, lambda: old_rows.still(removal, copied))
    with database.db.atomic():
        old_rows.drop(removal, list(copied), count)


def _hold_lease(removal: Removal) -> None:
    if not old_rows.hold(removal):
        raise _Stopped


# --- the result


def _summary(run: Run, table: str) -> Removed:
    removal, kept = Removal.get(Removal.run_id == run.id), old_rows.left(run.id)
    if not kept:
        return Removed("removed", _gone(removal.removed_count))
    failure = (
        f"{_rows(kept)} of {table} that {_are(kept)} no longer in the list could not be removed, and {_stay(kept)}: "
        f"{removal.reason}. Delete what refers to them, or declare ON DELETE there, and `retry {run.id}`; "
        f"or leave them out of fresh_query"
    )
    return Removed("removed", _gone(removal.removed_count), failure)


def _failure(run: Run, error: Exception) -> Removed:
    """Return the result of a removal whose `fresh_query`, or whose deletion, failed: the run fails."""
    if not isinstance(error, SluiceError):
        log.exception("run %d: rows that are no longer in the list", run.id)
    why = message_of(error) if isinstance(error, SluiceError) else describe(error)
    removed = _gone(Removal.get(Removal.run_id == run.id).removed_count)
    return Removed("removed", removed, f"the rows that are no longer in the list could not be removed: {why}")


def _gone(count: int) -> str:
    return f"{_rows(count)} that {_are(count)} no longer in the list"


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _items(count: int) -> str:
    return f"{count:,} {'item' if count == 1 else 'items'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _stay(count: int) -> str:
    return "stays" if count == 1 else "stay"
