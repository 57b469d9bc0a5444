"""What a person does to a schedule from the page: done by the timetable, and answered in a sentence."""

from collections.abc import Callable

import streamlit as st
from peewee import PeeweeException

from workers.connections import database
from workers.control import tenants
from workers.errors import DependencyDown, SluiceError
from workers.monitor.access import viewer
from workers.monitor.actions import stale_clicks
from workers.monitor.readings.cache import forget
from workers.monitor.readings.log_throttle import complain
from workers.records import idempotency_keys
from workers.scheduling import timetable

#: Where the session keeps what is to be said of the last act: a callback of a fragment may not say it itself.
#: Each act takes its key, made when it was offered: see `act_keys`.
DONE, REFUSAL = "schedule_done", "schedule_refusal"


def change(source: str, tenant: str | None, cron: str, timezone: str, catch_up: str, *, key: str = "") -> bool:
    """Set a schedule. Returns whether it was done; else REFUSAL says why not."""

    def do() -> None:
        tenants.refuse(source, tenant)
        timetable.set_schedule(source, cron, timezone=timezone, catch_up=catch_up, tenant=tenant, **_me())

    return _act(do, "The schedule is set", key)


def pause(source: str, tenant: str | None, key: str = "") -> bool:
    """Let a schedule make no more runs."""
    return _act(lambda: timetable.pause_schedule(source, tenant=tenant, **_me()), "The schedule is paused", key)


def resume(source: str, tenant: str | None, key: str = "") -> bool:
    """Let a paused schedule go on."""
    return _act(lambda: timetable.resume_schedule(source, tenant=tenant, **_me()), "The schedule goes on", key)


def remove(source: str, tenant: str | None, key: str = "") -> bool:
    """Take back what people have set."""
    done = "What people had set is removed"
    return _act(lambda: timetable.remove_schedule(source, tenant=tenant, **_me()), done, key)


def _act(do: Callable[[], object], done: str, key: str) -> bool:
    """Do it. What is said then names nothing: a toast is Markdown, and a tenant's name may be anything."""
    st.session_state.pop(REFUSAL, None)
    if not viewer.may_act():
        st.session_state[REFUSAL] = "Only an operator may change schedules: nothing was done."
        return False
    if stale_clicks.is_late():
        st.session_state[REFUSAL] = stale_clicks.LATE
        return False
    try:
        with database.connection(), idempotency_keys.once(key, viewer.who()):
            do()
    except (DependencyDown, PeeweeException) as error:
        complain("a schedule could not be changed", error)
        st.session_state[REFUSAL] = "The database does not answer: nothing was done."
        return False
    except SluiceError as error:
        st.session_state[REFUSAL] = str(error)
        return False
    forget()
    st.session_state[DONE] = done
    return True


def _me() -> dict[str, str]:
    return {"who": viewer.who(), "door": "monitor"}
