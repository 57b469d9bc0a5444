"""Act keys: an act that a page offers is done once. Its key says what the person saw; the first press spends it.

Two tabs that show the same offer the same key: pressed in both, a run is started once. What was done changes what is
seen, and with it the next key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from peewee import fn

from workers.connections import database
from workers.errors import AlreadyDone
from workers.records.tables import ActKey, Run, RunEvent

#: For so long a press that comes late is known.
_KEPT = timedelta(days=1)


def of_start(source: str, tenant: str | None, how: str) -> str:
    """Return the key of starting a run of a source: another one once a run was started."""
    whose = Run.tenant.is_null() if tenant is None else Run.tenant == tenant
    newest = Run.select(fn.MAX(Run.id)).where(Run.source == source, whose)
    return f"{how} {source} {tenant or ''} after run {newest.scalar() or 0}"


def of_run(run_id: int, what: str) -> str:
    """Return the key of an act on a run: another one once anything was done to the run."""
    newest = RunEvent.select(fn.MAX(RunEvent.id)).where(RunEvent.run_id == run_id)
    return f"{what} run {run_id} after event {newest.scalar() or 0}"


@contextmanager
def once(key: str, who: str) -> Iterator[None]:
    """Do within the block what the key stands for. Where it fails, the key may be used again.

    Parameters:
      key(str): From `of_start` or `of_run`, made when the act was offered; or any text that says as much. Empty: it may
        be done again.
      who(str): Who presses.

    Raises:
      AlreadyDone: The key was spent before.

    *Warning:* a process that dies within the block leaves the key spent: the act is offered anew once the run, or what
    it is about, has changed; or a day later.
    """
    if not key:
        yield
        return
    _spend(key, who)
    try:
        yield
    except BaseException:
        ActKey.delete().where(ActKey.key == key).execute()
        raise


def _spend(key: str, who: str) -> None:
    now = database.now()
    ActKey.delete().where(ActKey.at < now - _KEPT).execute()
    row = {ActKey.key: key, ActKey.at: now, ActKey.who: who}
    spent = ActKey.insert(row).on_conflict(action="NOTHING", conflict_target=[ActKey.key]).as_rowcount().execute()
    if not spent:
        first = ActKey.get_or_none(ActKey.key == key)
        by = f" by {first.who} at {first.at:%H:%M:%S} UTC" if first else ""
        raise AlreadyDone(f"This was done already{by}: nothing was done twice. Look, and press again for one more")
