"""Performs what a person pressed: checks role, stale click and idempotency key, calls it, and keeps the result to show.

Every button, form and dialog that changes something goes through `perform`. The callback of a button cannot show a
toast in a fragment, so `show_later` keeps the result in the session and the live part of the page shows it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import streamlit as st
from peewee import PeeweeException

from workers.connections import database
from workers.control.author import Author
from workers.errors import AlreadyDone, DependencyDown, SluiceError
from workers.monitor.access import current_user
from workers.monitor.actions import stale_clicks
from workers.monitor.html.markdown import plain
from workers.monitor.readings import cache
from workers.monitor.readings.log_throttle import log_throttled
from workers.records import idempotency_keys

#: The session's key for the result that is not shown yet.
LAST_RESULT = "sluice_last_result"

NOT_ALLOWED = "Nothing was changed: only operators can do this."
STALE = "Nothing was changed: the connection was lost when you pressed. Check the page, then press again."
UNAVAILABLE = "Not completed: the database, or Redis, does not answer. Try again when it is back."


class Outcome(StrEnum):
    """How an act ended."""

    DONE = "done"
    NOT_ALLOWED = "not_allowed"  # the person is not an operator, or not any more
    STALE = "stale"  # pressed before the connection was lost
    REPEATED = "repeated"  # the idempotency key was used before
    UNAVAILABLE = "unavailable"  # the database or Redis does not answer
    REFUSED = "refused"  # the run, schedule or budget does not allow it now


@dataclass(frozen=True)
class Result:
    """How an act ended, and the sentence for the person.

    Parameters:
      outcome(Outcome): How it ended.
      text(str): The sentence; empty where another part of the page shows the result.
    """

    outcome: Outcome
    text: str = ""

    @property
    def is_done(self) -> bool:
        """Whether something was changed."""
        return self.outcome is Outcome.DONE


def perform(do: Callable[[], str], key: str = "") -> Result:
    """Do it once, if the person is allowed to, with a connection to the database.

    Parameters:
      do(Callable): Changes something by `control` or `scheduling`; returns the sentence for the person.
      key(str): The idempotency key that was made when the act was offered; empty where it can be done again.

    Returns:
      Result: How it ended. Errors that a person can act on are results; any other error is raised.
    """
    try:
        return _tried(do, key)
    finally:
        cache.forget()  # the person wants to see the change


def origin() -> Author:
    """Return who acts and from where, as `control` and `scheduling` record it."""
    return Author(who=current_user.name(), door="monitor")


def show_later(result: Result) -> None:
    """Keep a result until the page is drawn again."""
    st.session_state[LAST_RESULT] = result


def show_last() -> None:
    """Show the result that was kept, as a toast, once."""
    result: Result | None = st.session_state.pop(LAST_RESULT, None)
    if result and result.text:
        st.toast(plain(result.text), icon=":material/check:" if result.is_done else ":material/warning:")


def _tried(do: Callable[[], str], key: str) -> Result:
    if not current_user.may_act():
        return Result(Outcome.NOT_ALLOWED, NOT_ALLOWED)
    if stale_clicks.is_stale():
        return Result(Outcome.STALE, STALE)
    try:
        with database.connection(), idempotency_keys.once(key, current_user.name()):
            return Result(Outcome.DONE, do())
    except (DependencyDown, PeeweeException) as error:
        log_throttled("an act of the page was not performed", error)
        return Result(Outcome.UNAVAILABLE, UNAVAILABLE)
    except AlreadyDone as error:
        return Result(Outcome.REPEATED, str(error))
    except SluiceError as error:
        return Result(Outcome.REFUSED, str(error))
