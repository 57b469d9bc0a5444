"""Tuning: a dialog for what can be set of a run while it goes on: its lanes and its priority."""

from functools import partial

import streamlit as st

from workers.control import runner
from workers.control.runner import MOST_LANES, MOST_PRIORITY
from workers.monitor.access import viewer
from workers.monitor.actions import confirm
from workers.monitor.html.dialog import open_dialog
from workers.monitor.html.markup import Html, fill
from workers.monitor.readings.database_reading import reading
from workers.records import idempotency_keys
from workers.records.tables import Run

_WHAT_IT_DOES = """
<p class="sl-sentence">More lanes ask more at once, as far as the budget lets them. Lanes that are too many stop after
the item each has in hand.</p>
<p class="sl-sentence">Of runs that wait in line, or share a budget, the one with the higher priority goes first.</p>
"""
_REFUSED = """
<p class="sl-line sl-bad" role="alert"><i class="sl-icon sl-i-cross"></i><span>Nothing was set: {what}</span></p>
"""


def ask(run: Run) -> None:
    """Ask for them."""
    key = reading(lambda: idempotency_keys.of_run(run.id, "tune"))
    open_dialog(f"Lanes and priority of run {run.id}", partial(_draw, run.id, run.lanes, run.priority, key))


def _draw(run_id: int, lanes: int, priority: int, key: str) -> None:
    st.html(fill(_WHAT_IT_DOES))
    left, right = st.columns(2)  # unbounded fields: a browser would keep what is out of bounds to itself
    wanted = int(left.number_input(f"Lanes, 1 to {MOST_LANES:,}", value=lanes))
    first = int(right.number_input(f"Priority, -{MOST_PRIORITY} to {MOST_PRIORITY}", value=priority))
    with st.container(horizontal=True, key="confirm"):
        agreed = st.button("Set", type="primary", key="confirm_yes")
        declined = st.button("Leave it as it is", key="confirm_no")
    if agreed and (what := why_not(wanted, first)):
        st.html(_refused(what))
        return
    if agreed:
        spent = key_to_spend(key, (lanes, priority), (wanted, first))
        confirm.perform(partial(change, run_id, lanes, wanted, priority, first), spent)
    if agreed or declined:
        st.rerun()


def why_not(lanes: int, priority: int) -> str:
    """Return what is out of range; empty where both can be set."""
    if not 1 <= lanes <= MOST_LANES:
        return f"a run has 1 to {MOST_LANES:,} lanes, not {lanes:,}."
    if abs(priority) > MOST_PRIORITY:
        return f"a priority is -{MOST_PRIORITY} to {MOST_PRIORITY}, not {priority:,}."
    return ""


def change(run_id: int, lanes: int, wanted: int, priority: int, first: int) -> str:
    """Set what was changed, and say so; what was not is left to others.

    Parameters:
      lanes(int), priority(int): As the person saw them.
      wanted(int), first(int): As they are to be.
    """
    said = []
    if wanted != lanes:
        said.append(f"{runner.set_lanes(run_id, wanted, who=viewer.who(), door='monitor').lanes} lanes")
    if first != priority:
        run = runner.set_priority(run_id, first, who=viewer.who(), door="monitor")
        said.append(f"priority {run.priority}")
    return f"Run {run_id} has {' and '.join(said)}" if said else f"Run {run_id} stays as it is"


def key_to_spend(key: str, before: tuple[int, int], after: tuple[int, int]) -> str:
    """Return the act's key; none where nothing is to be set: it is left for what will be."""
    return key if before != after else ""


def _refused(what: str) -> Html:
    return fill(_REFUSED, what=what)
