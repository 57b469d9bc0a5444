"""Asks before an act, in a dialog: the consequences, a button that performs it, and one that leaves it unchanged."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import streamlit as st

from workers import clock
from workers.monitor.actions import act
from workers.monitor.html.dialog import open_dialog
from workers.monitor.html.formatting import sentence
from workers.monitor.html.markup import fill
from workers.monitor.readings.time_zone import zone

LEAVE = "Leave unchanged"
_SENTENCE = '<p class="sl-sentence">{text}</p>'


@dataclass(frozen=True)
class Question:
    """An act that a person is asked about.

    Parameters:
      title(str): The question. It is Markdown: nothing from the database stands in it but numbers.
      sentences(tuple[str, ...]): The consequences, from the facts as they are now.
      yes(str): The label of the button that performs it; empty where nothing can be done.
      do(Callable): Performs it; returns the sentence for the person, or nothing where another part shows the result.
      key(str): Its idempotency key, from `idempotency_keys`; empty where nothing can be done.
    """

    title: str
    sentences: tuple[str, ...]
    yes: str = ""
    do: Callable[[], str] = str
    key: str = ""


def ask(question: Question) -> None:
    """Open the dialog. It is not in the part of the page that refreshes: it stays until it is answered."""
    open_dialog(question.title, partial(_draw, question))


def buttons(yes: str) -> tuple[bool, bool]:
    """Draw the two buttons of a dialog. Returns whether the first, and whether the second, was pressed.

    Parameters:
      yes(str): The label of the first; empty draws only the second.
    """
    with st.container(horizontal=True, key="confirm"):
        agreed = bool(yes) and st.button(yes, type="primary", key="confirm_yes")
        declined = st.button(LEAVE if yes else "Close", key="confirm_no")
    return agreed, declined


def _draw(question: Question) -> None:
    here = zone()
    for text in question.sentences:
        st.html(fill(_SENTENCE, text=sentence(text, here, clock.now())))
    agreed, declined = buttons(question.yes)
    if agreed:
        with st.spinner("Working…"):
            act.show_later(act.perform(question.do, question.key))
    if agreed or declined:
        st.rerun()
