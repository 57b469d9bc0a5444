"""Asking before an act: what will come of it, and the button that does it. The act's result is said in words."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import streamlit as st
from peewee import PeeweeException

from workers import clock
from workers.connections import database
from workers.errors import DependencyDown, SluiceError
from workers.monitor.access import viewer
from workers.monitor.actions import stale_clicks
from workers.monitor.html.dialog import open_dialog
from workers.monitor.html.formatting import sentence
from workers.monitor.html.markup import fill
from workers.monitor.readings.cache import forget
from workers.monitor.readings.log_throttle import complain
from workers.monitor.readings.time_zone import zone
from workers.records import idempotency_keys
from workers.text.plain_text import one_line

_SAID = "sluice_said"
_SENTENCE = '<p class="sl-sentence">{text}</p>'
#: What is said where nothing could be done, by its icon.
_REFUSED, _DONE = ":material/warning:", ":material/check:"
#: What Markdown takes for more than text: a toast is Markdown, and an error may repeat what a row says.
_MARKDOWN = re.compile(r"[\\`*_\[\]<>~$:#!]")


@dataclass(frozen=True)
class Question:
    """An act that a person is asked about.

    Parameters:
      title(str): The question. It is Markdown: nothing from the database stands in it but numbers.
      sentences(Sequence[str]): What will come of it.
      yes(str): What the button says that does it; empty where nothing can be done.
      do(Callable): Does it; returns what is then said, or nothing where others say it.
      key(str): Its key, from `act_keys`: it is done once. Empty where nothing can be done.
    """

    title: str
    sentences: tuple[str, ...]
    yes: str = ""
    do: Callable[[], str] = str
    key: str = ""


def ask(question: Question) -> None:
    """Ask. The dialog is none of the part that refreshes: it stays as it was opened until it is answered."""
    open_dialog(question.title, partial(_draw, question))


def perform(do: Callable[[], str], key: str) -> None:
    """Do it once, if that is allowed now; what came of it is said by `tell`.

    Parameters:
      key(str): Its key, from `act_keys`, as it was when the act was offered.
    """
    st.session_state[_SAID] = _result(do, key)
    forget()


def tell() -> None:
    """Say what came of the last act."""
    text, icon = st.session_state.pop(_SAID, ("", ""))
    if text:
        st.toast(plain(text), icon=icon)


def plain(text: str) -> str:
    """Return text as Markdown that shows just that."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def _draw(question: Question) -> None:
    here = zone()
    for text in question.sentences:
        st.html(fill(_SENTENCE, text=sentence(text, here, clock.now())))
    with st.container(horizontal=True, key="confirm"):
        agreed = question.yes and st.button(question.yes, type="primary", key="confirm_yes")
        declined = st.button("Leave it as it is" if question.yes else "Close", key="confirm_no")
    if agreed:
        with st.spinner("One moment"):
            perform(question.do, question.key)
    if agreed or declined:
        st.rerun()


def _result(do: Callable[[], str], key: str = "") -> tuple[str, str]:
    if not viewer.may_act():
        return "Nothing was done: only an operator may act, and you are none now.", _REFUSED
    if stale_clicks.is_late():
        return stale_clicks.LATE, _REFUSED
    try:
        with database.connection(), idempotency_keys.once(key, viewer.who()):
            return do(), _DONE
    except (DependencyDown, PeeweeException) as error:
        complain("an act of the page was not done", error)
        return "The database does not answer: nothing was done.", _REFUSED
    except SluiceError as error:
        return str(error), _REFUSED
