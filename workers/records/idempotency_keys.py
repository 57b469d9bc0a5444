"""Idempotency keys of actions on the page: an action is done once, however often its button is clicked.

The key depends on the state that the person saw. Two browser tabs with the same state have the same key, so a click in
both starts one run. The action changes the state, and with it the next key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from peewee import fn

from workers.connections import database
from workers.errors import AlreadyDone
from workers.records.tables import ActKey, Run, RunEvent

#: How long a used key is remembered.
_KEPT = timedelta(days=1)


def of_start(source: str, tenant: str | None, how: str) -> str:
    """Return the key for starting a run of a source. It changes when a run was started."""
    whose = Run.tenant.is_null() if tenant is None else Run.tenant == tenant
    newest = Run.select(fn.MAX(Run.id)).where(Run.source == source, whose)
    return f"{how} {source} {tenant or ''} after run {newest.scalar() or 0}"


def of_run(run_id: int, what: str) -> str:
    """Return the key for an action on a run. It changes with each event of the run."""
    newest = RunEvent.select(fn.MAX(RunEvent.id)).where(RunEvent.run_id == run_id)
    return f"{what} run {run_id} after event {newest.scalar() or 0}"


@contextmanager
def once(key: str, who: str) -> Iterator[None]:
    """Do the action of the key within the block. If it fails, the key can be used again.

    Parameters:
      key(str): From `of_start` or `of_run`, when the button was drawn; or another text that identifies the action.
        Empty: the action can be repeated.
      who(str): The person who clicked.

    Raises:
      AlreadyDone: The key was used before.

    *Warning:* if the process dies within the block, the key stays used: the action is possible again when the run has
    changed, or a day later.
    """
    if not key:
        yield
        return
    _use(key, who)
    try:
        yield
    except BaseException:
        ActKey.delete().where(ActKey.key == key).execute()
        raise


def _use(key: str, who: str) -> None:
    now = database.now()
    ActKey.delete().where(ActKey.at < now - _KEPT).execute()
    row = {ActKey.key: key, ActKey.at: now, ActKey.who: who}
    is_new = ActKey.insert(row).on_conflict(action="NOTHING", conflict_target=[ActKey.key]).as_rowcount().execute()
    if not is_new:
        first = ActKey.get_or_none(ActKey.key == key)
        by = f" by {first.who} at {first.at:%H:%M:%S} UTC" if first else ""
        raise AlreadyDone(
            f"This was done already{by}, and was not done twice. Check the page, and click again to repeat it"
        )
