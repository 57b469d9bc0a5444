"""Old rows: what a fresh run may remove, and how far it is. The only writer of `sluice_old_rows`, `sluice_removals`."""

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
#: Rows of one transaction where nothing but their own table is touched.
_CLEARED = 5_000


def get(run_id: int) -> Removal | None:
    """Return how far a run's removal is; None where it never began one."""
    return Removal.get_or_none(Removal.run_id == run_id)


# --- before the list


def begin(run: Run) -> Removal:
    """Record that a fresh run copies the keys of the rows that are there. Earlier runs of its source give theirs up."""
    Removal.insert(run_id=run.id).on_conflict_ignore().execute()
    for run_id in _superseded(run):
        give_up(run_id, f"run {run.id} of {run.source} is fresh, too, and began since")
    return Removal.get(Removal.run_id == run.id)


def _superseded(run: Run) -> list[int]:
    of_its_source = (Run.source == run.source) & (fn.COALESCE(Run.tenant, "") == (run.tenant or ""))
    return _open(of_its_source & Run.status.in_(ENDED) & (Run.id != run.id))


def _open(which: Any) -> list[int]:
    """Return those of some runs that have old rows, or had."""
    found = Removal.select(Removal.run_id).join(Run, on=(Run.id == Removal.run_id))
    rows: Any = found.where(which, Removal.state != RemovalState.OVER).order_by(Removal.run_id).tuples()
    return [run_id for (run_id,) in rows]


def add(run_id: int, rows: Iterable[tuple[str, str]], position: str) -> None:
    """Within `cursor.page_commit`: record rows that are there.

    Parameters:
      rows(Iterable[tuple[str, str]]): Their primary keys and `unique_by` values, as text. Known ones are left alone.
      position(str): The last one's primary key.
    """
    for some in chunked([{"run_id": run_id, "item_id": item_id, "row_key": key} for item_id, key in rows], _CHUNK):
        OldRow.insert_many(some).on_conflict_ignore().execute()
    Removal.update({Removal.position: position}).where(Removal.run_id == run_id).execute()


def copied(run_id: int) -> None:
    """Within `cursor.page_commit`: record that every row is known, so that the list may be asked for."""
    copying = (Removal.run_id == run_id) & (Removal.state == RemovalState.COPYING)
    Removal.update({Removal.state: RemovalState.COPIED, Removal.position: None}).where(copying).execute()


# --- while lists are read


def holders(sources: Collection[str]) -> list[int]:
    """Return the runs of some sources that have old rows."""
    return _open(Run.source.in_(sources))


def seen(run_ids: Sequence[int], item_ids: Iterable[str]) -> None:
    """Within `cursor.page_commit`: a list has brought these rows, so that they are not to be removed.

    Parameters:
      run_ids(Sequence[int]): From `holders`: a run that failed, and is retried later, must not remove them either.
    """
    for some in chunked(item_ids, _CHUNK):
        OldRow.delete().where(OldRow.run_id.in_(run_ids), OldRow.item_id.in_(some)).execute()


# --- at the end


def take(run_id: int, lease_seconds: float) -> Removal | None:
    """Take the removal of a run whose list was whole, until the lease ends; `due_at` is its token.

    Returns:
      Removal | None: None where another process is at it, or it is over.
    """
    now = database.now()
    free = Removal.due_at.is_null() | (Removal.due_at <= now)
    values = {Removal.state: RemovalState.REMOVING, Removal.due_at: now + timedelta(seconds=lease_seconds)}
    wanted = (Removal.run_id == run_id) & Removal.state.in_([RemovalState.COPIED, RemovalState.REMOVING])
    return next(iter(Removal.update(values).where(wanted, free).returning(Removal).execute()), None)


def give_back(removal: Removal) -> None:
    """Let other processes continue a removal at once."""
    Removal.update({Removal.due_at: None}).where(_ours(removal)).execute()


def hold(removal: Removal) -> bool:
    """Within a transaction: hold the run's row, so that it is not cancelled meanwhile.

    Returns:
      bool: Whether the run is running and the removal still ours.
    """
    running = (Run.id == removal.run_id) & (Run.status == RunStatus.RUNNING)
    if not Run.update({Run.updated_at: database.now()}).where(running).execute():
        return False
    return Removal.select(Removal.run_id).where(_ours(removal)).exists()


def after(removal: Removal, limit: int) -> dict[str, str]:
    """Return the next old rows that were not looked at yet: primary key -> `unique_by` value."""
    old = OldRow.select(OldRow.item_id, OldRow.row_key).where(OldRow.run_id == removal.run_id)
    if removal.position is not None:
        old = old.where(OldRow.item_id > removal.position)
    rows: Any = old.order_by(OldRow.item_id).limit(limit).tuples()
    return dict(rows)


def still(removal: Removal, item_ids: Iterable[str]) -> list[str]:
    """Return which of these rows no list has brought until now."""
    rows: Any = OldRow.select(OldRow.item_id).where(OldRow.run_id == removal.run_id, OldRow.item_id.in_(list(item_ids)))
    return [item_id for (item_id,) in rows.tuples()]


def rewind(removal: Removal) -> None:
    """Look again at the rows that are left, from the first one on: what referred to them may be gone."""
    Removal.update({Removal.position: None, Removal.reason: None}).where(_ours(removal)).execute()
    removal.position = None


def drop(removal: Removal, item_ids: Sequence[str], removed: int) -> None:
    """Within the transaction that removes them, where it can: these rows are gone.

    Parameters:
      removed(int): How many of them were there and this run's to remove.
    """
    OldRow.delete().where(OldRow.run_id == removal.run_id, OldRow.item_id.in_(item_ids)).execute()
    count = {Removal.removed_count: Removal.removed_count + removed}
    Removal.update(count).where(Removal.run_id == removal.run_id).execute()


def advance(removal: Removal, position: str, lease_seconds: float, reason: str | None = None) -> bool:
    """Record up to which key the old rows were looked at; the lease begins again.

    Parameters:
      reason(str | None): Why the row of this key could not be removed.

    Returns:
      bool: Whether the removal was still ours.
    """
    until: datetime = database.now() + timedelta(seconds=lease_seconds)
    values: dict[Any, Any] = {Removal.position: position, Removal.due_at: until}
    if reason:
        values[Removal.reason] = fn.COALESCE(Removal.reason, storable_reason(reason))
    took = Removal.update(values).where(_ours(removal)).execute()
    removal.position, removal.due_at = position, until
    return bool(took)


def left(run_id: int) -> int:
    """Count the old rows of a run that are still there for all it knows."""
    count: int = OldRow.select().where(OldRow.run_id == run_id).count()
    return count


def are_there(run_id: int) -> bool:
    """Whether a run has old rows."""
    return OldRow.select(OldRow.run_id).where(OldRow.run_id == run_id).exists()


def _ours(removal: Removal) -> Any:
    return (Removal.run_id == removal.run_id) & (Removal.due_at == removal.due_at)


# --- what becomes of it


def again(run_id: int) -> None:
    """Within a transaction: let a removal that left rows be tried again from the first of them."""
    removing = (Removal.run_id == run_id) & (Removal.state == RemovalState.REMOVING)
    Removal.update({Removal.position: None, Removal.reason: None, Removal.due_at: None}).where(removing).execute()


def has_failed(run_id: int) -> bool:
    """Whether the removal of a run that has failed left rows, so that a retry can continue it."""
    removing = (Removal.run_id == run_id) & (Removal.state == RemovalState.REMOVING)
    return Removal.select(Removal.run_id).where(removing).exists()


def give_up(run_id: int, reason: str | None = None) -> None:
    """Let a run remove nothing, or nothing more, and forget its old rows.

    Parameters:
      reason(str | None): What its timeline is to say of it at its end; None: nothing more is to be said.
    """
    close(run_id, reason)
    clear(run_id)


def close(run_id: int, reason: str | None = None) -> None:
    """Within a transaction: as `give_up`, but leave the rows to `clear`."""
    values = {Removal.state: RemovalState.OVER, Removal.reason: reason and storable_reason(reason)}
    Removal.update(values).where(Removal.run_id == run_id).execute()


def clear(run_id: int) -> None:
    """Forget the old rows of a run in short transactions; what a process leaves that is stopped, retention removes."""
    while clear_some(run_id) and not clock.stop_requested.is_set():
        pass


def clear_some(run_id: int) -> int:
    """Forget some old rows of a run; return how many."""
    some = OldRow.select(OldRow.item_id).where(OldRow.run_id == run_id).order_by(OldRow.item_id).limit(_CLEARED)
    count: int = OldRow.delete().where(OldRow.run_id == run_id, OldRow.item_id.in_(some)).execute()
    return count


def leftover() -> int | None:
    """Return a run whose old rows nothing can need any more, if there is one.

    It completed, was cancelled, gave them up, or has lost its items for its age.
    """
    of_it = OldRow.select(OldRow.run_id).where(OldRow.run_id == Removal.run_id)
    useless = (Removal.state == RemovalState.OVER) | Run.status.in_([RunStatus.COMPLETED, RunStatus.CANCELLED])
    useless |= Run.items_removed_at.is_null(False)
    found = Removal.select(Removal.run_id).join(Run, on=(Run.id == Removal.run_id))
    run_id: int | None = found.where(useless, fn.EXISTS(of_it)).limit(1).scalar()
    return run_id
