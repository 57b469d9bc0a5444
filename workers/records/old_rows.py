"""Records which rows a fresh run can remove, and how far its removal is."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from peewee import chunked, fn

from workers import clock
from workers.connections import database
from workers.failures import storable_reason
from workers.records.tables import ENDED, OldRow, Removal, RemovalState, Run, RunStatus

#: Rows of one INSERT, and keys of one IN.
_CHUNK = 500
#: Rows of one transaction that changes no other table.
_CLEARED = 5_000


def get(run_id: int) -> Removal | None:
    """Return the state of a run's removal; None if it never began one."""
    return Removal.get_or_none(Removal.run_id == run_id)


# --- before the list


def begin(run: Run) -> Removal:
    """Record that a fresh run copies the keys of existing rows. Earlier fresh runs of its source give up theirs."""
    Removal.insert(run_id=run.id).on_conflict_ignore().execute()
    for run_id in _superseded(run):
        give_up(run_id, f"run {run.id} of {run.source} is fresh, too, and began later")
    return Removal.get(Removal.run_id == run.id)


def _superseded(run: Run) -> list[int]:
    of_its_source = (Run.source == run.source) & (fn.COALESCE(Run.tenant, "") == (run.tenant or ""))
    return _open(of_its_source & Run.status.in_(ENDED) & (Run.id != run.id))


def _open(which: Any) -> list[int]:
    """Return the ids of those runs whose removal is not over."""
    found = Removal.select(Removal.run_id).join(Run, on=(Run.id == Removal.run_id))
    rows: Any = found.where(which, Removal.state != RemovalState.OVER).order_by(Removal.run_id).tuples()
    return [run_id for (run_id,) in rows]


def add(run_id: int, rows: Iterable[tuple[str, str]], position: str) -> None:
    """Within `cursor.page_commit`: record existing rows.

    Parameters:
      rows(Iterable[tuple[str, str]]): Their primary keys and `unique_by` values, as text. Recorded ones stay unchanged.
      position(str): The primary key of the last one.
    """
    for some in chunked([{"run_id": run_id, "item_id": item_id, "row_key": key} for item_id, key in rows], _CHUNK):
        OldRow.insert_many(some).on_conflict_ignore().execute()
    Removal.update({Removal.position: position}).where(Removal.run_id == run_id).execute()


def copied(run_id: int) -> None:
    """Within `cursor.page_commit`: record that all keys are copied, so that the list can be read."""
    copying = (Removal.run_id == run_id) & (Removal.state == RemovalState.COPYING)
    Removal.update({Removal.state: RemovalState.COPIED, Removal.position: None}).where(copying).execute()


# --- while lists are read


def holders(sources: Collection[str]) -> list[int]:
    """Return the runs of some sources whose removal is not over."""
    return _open(Run.source.in_(sources))


def seen(run_ids: Sequence[int], item_ids: Iterable[str]) -> None:
    """Within `cursor.page_commit`: keep these rows from removal, because a list contains them.

    Parameters:
      run_ids(Sequence[int]): From `holders`: a failed run that is retried later must not remove them either.
    """
    for some in chunked(item_ids, _CHUNK):
        OldRow.delete().where(OldRow.run_id.in_(run_ids), OldRow.item_id.in_(some)).execute()


# --- at the end


def take(run_id: int, lease_seconds: float) -> Removal | None:
    """Claim the removal of a run whose list was complete, for the length of a lease; `due_at` identifies the lease.

    Returns:
      Removal | None: None if another process has claimed it, or it is over.
    """
    now = database.now()
    free = Removal.due_at.is_null() | (Removal.due_at <= now)
    values = {Removal.state: RemovalState.REMOVING, Removal.due_at: now + timedelta(seconds=lease_seconds)}
    wanted = (Removal.run_id == run_id) & Removal.state.in_([RemovalState.COPIED, RemovalState.REMOVING])
    return next(iter(Removal.update(values).where(wanted, free).returning(Removal).execute()), None)


def give_back(removal: Removal) -> None:
    """End the lease of a removal, so that another process can continue it."""
    Removal.update({Removal.due_at: None}).where(_is_leased(removal)).execute()


def hold(removal: Removal) -> bool:
    """Within a transaction: lock the run's row, so that the run cannot be cancelled meanwhile.

    Returns:
      bool: Whether the run is running and the lease still holds.
    """
    running = (Run.id == removal.run_id) & (Run.status == RunStatus.RUNNING)
    if not Run.update({Run.updated_at: database.now()}).where(running).execute():
        return False
    return Removal.select(Removal.run_id).where(_is_leased(removal)).exists()


def after(removal: Removal, limit: int) -> dict[str, str]:
    """Return the next old rows after the position of the removal: primary key -> `unique_by` value."""
    old = OldRow.select(OldRow.item_id, OldRow.row_key).where(OldRow.run_id == removal.run_id)
    if removal.position is not None:
        old = old.where(OldRow.item_id > removal.position)
    rows: Any = old.order_by(OldRow.item_id).limit(limit).tuples()
    return dict(rows)


def still(removal: Removal, item_ids: Iterable[str]) -> list[str]:
    """Return which of these rows are still old rows: no list has contained them."""
    rows: Any = OldRow.select(OldRow.item_id).where(OldRow.run_id == removal.run_id, OldRow.item_id.in_(list(item_ids)))
    return [item_id for (item_id,) in rows.tuples()]


def rewind(removal: Removal) -> None:
    """Start again at the first old row: rows that referred to the remaining ones can be removed by now."""
    Removal.update({Removal.position: None, Removal.reason: None}).where(_is_leased(removal)).execute()
    removal.position = None


def drop(removal: Removal, item_ids: Sequence[str], removed: int) -> None:
    """Forget old rows that were removed; in the transaction that removes them, if they are in the same database.

    Parameters:
      removed(int): How many rows this run has removed.
    """
    OldRow.delete().where(OldRow.run_id == removal.run_id, OldRow.item_id.in_(item_ids)).execute()
    count = {Removal.removed_count: Removal.removed_count + removed}
    Removal.update(count).where(Removal.run_id == removal.run_id).execute()


def advance(removal: Removal, position: str, lease_seconds: float, reason: str | None = None) -> bool:
    """Record the position of the removal, and start its lease again.

    Parameters:
      position(str): The last key that was checked.
      reason(str | None): Why the row of this key could not be removed.

    Returns:
      bool: Whether the lease still held.
    """
    until: datetime = database.now() + timedelta(seconds=lease_seconds)
    values: dict[Any, Any] = {Removal.position: position, Removal.due_at: until}
    if reason:
        values[Removal.reason] = fn.COALESCE(Removal.reason, storable_reason(reason))
    took = Removal.update(values).where(_is_leased(removal)).execute()
    removal.position, removal.due_at = position, until
    return bool(took)


def left(run_id: int) -> int:
    """Count the old rows of a run that are not removed yet."""
    count: int = OldRow.select().where(OldRow.run_id == run_id).count()
    return count


def are_there(run_id: int) -> bool:
    """Whether a run has old rows."""
    return OldRow.select(OldRow.run_id).where(OldRow.run_id == run_id).exists()


def _is_leased(removal: Removal) -> Any:
    return (Removal.run_id == removal.run_id) & (Removal.due_at == removal.due_at)


# --- after a failure, and its end


def again(run_id: int) -> None:
    """Within a transaction: let a removal that could not remove all rows start again."""
    removing = (Removal.run_id == run_id) & (Removal.state == RemovalState.REMOVING)
    Removal.update({Removal.position: None, Removal.reason: None, Removal.due_at: None}).where(removing).execute()


def has_failed(run_id: int) -> bool:
    """Whether the removal of a failed run is not over, so that a retry can continue it."""
    removing = (Removal.run_id == run_id) & (Removal.state == RemovalState.REMOVING)
    return Removal.select(Removal.run_id).where(removing).exists()


def give_up(run_id: int, reason: str | None = None) -> None:
    """End the removal of a run without removing more rows, and forget its old rows.

    Parameters:
      reason(str | None): For the run's timeline at its end; None: no line.
    """
    close(run_id, reason)
    clear(run_id)


def close(run_id: int, reason: str | None = None) -> None:
    """Within a transaction: as `give_up`, but without forgetting the old rows; `clear` does that."""
    values = {Removal.state: RemovalState.OVER, Removal.reason: reason and storable_reason(reason)}
    Removal.update(values).where(Removal.run_id == run_id).execute()


def clear(run_id: int) -> None:
    """Forget the old rows of a run in short transactions. If the process is stopped, retention forgets the rest."""
    while clear_some(run_id) and not clock.stop_requested.is_set():
        pass


def clear_some(run_id: int) -> int:
    """Forget some old rows of a run; return their number."""
    some = OldRow.select(OldRow.item_id).where(OldRow.run_id == run_id).order_by(OldRow.item_id).limit(_CLEARED)
    count: int = OldRow.delete().where(OldRow.run_id == run_id, OldRow.item_id.in_(some)).execute()
    return count


def leftover() -> int | None:
    """Return a run whose old rows are not needed any more, if there is one.

    It completed, was cancelled, gave up its removal, or retention has removed its items.
    """
    its_rows = OldRow.select(OldRow.run_id).where(OldRow.run_id == Removal.run_id)
    useless = (Removal.state == RemovalState.OVER) | Run.status.in_([RunStatus.COMPLETED, RunStatus.CANCELLED])
    useless |= Run.items_removed_at.is_null(False)
    found = Removal.select(Removal.run_id).join(Run, on=(Run.id == Removal.run_id))
    run_id: int | None = found.where(useless, fn.EXISTS(its_rows)).limit(1).scalar()
    return run_id
