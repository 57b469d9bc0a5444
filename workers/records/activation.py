"""Starts a pending run, unless a run of its source and tenant is active; finds the active run and the next one."""

from collections.abc import Collection, Sequence
from typing import Any

from peewee import IntegrityError, fn

from workers.connections import database
from workers.records import runs
from workers.records.tables import ACTIVE, ONE_ACTIVE_INDEX, Run, RunStatus
from workers.text.error_text import message_of


def activate(run_id: int) -> bool:
    """Start a pending run, unless another run of its source and tenant is active. A unique index enforces that rule.

    Returns:
      bool: Whether this call started it.

    Raises:
      peewee.IntegrityError: Another constraint of the table, one that a user added for instance, refuses the change.
    """
    now = database.now()
    values = {
        Run.status: RunStatus.RUNNING,
        Run.started_at: fn.COALESCE(Run.started_at, now),
        Run.ended_at: None,
        Run.discovery_due_at: now,
        Run.updated_at: now,
    }
    try:
        with database.db.atomic():
            took = Run.update(values).where(Run.id == run_id, Run.status == RunStatus.PENDING).execute()
            if took:
                runs.note(run_id, "started", who="sluice", door="queue")
    except IntegrityError as error:
        if ONE_ACTIVE_INDEX not in message_of(error):  # SQLite and Postgres both name the index
            raise
        return False
    return bool(took)


def active(source: str, tenant: str | None) -> Run | None:
    """Return the active run of this source and tenant: the one that is running or paused."""
    return Run.get_or_none(Run.source == source, fn.COALESCE(Run.tenant, "") == (tenant or ""), Run.status.in_(ACTIVE))


def is_active(source: str, tenant: str | None) -> bool:
    """Whether this source and tenant have an active run. It reads no column that can be damaged."""
    its = (Run.source == source) & (fn.COALESCE(Run.tenant, "") == (tenant or ""))
    return Run.select(Run.id).where(its, Run.status.in_(ACTIVE)).exists()


def active_of(sources: Collection[str]) -> list[Run]:
    """Return the active runs of some sources, of all tenants."""
    return list(Run.select().where(Run.source.in_(sources), Run.status.in_(ACTIVE)).order_by(Run.id))


def next_pending(source: str, tenant: str | None) -> Run | None:
    """Return the run that starts next when the active run of this source and tenant ends."""
    return (
        Run.select()
        .where(Run.source == source, fn.COALESCE(Run.tenant, "") == (tenant or ""), Run.status == RunStatus.PENDING)
        .order_by(Run.priority.desc(), Run.id)
        .first()
    )


def waiting() -> Sequence[tuple[str, str | None]]:
    """Return the sources and tenants with a pending run."""
    found: Any = Run.select(Run.source, Run.tenant).where(Run.status == RunStatus.PENDING).distinct().tuples()
    return list(found)
