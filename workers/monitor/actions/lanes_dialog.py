"""The dialog that changes the lanes and the priority of a run that has not ended."""

from functools import partial

import streamlit as st

from workers.control import runner
from workers.control.runner import MOST_LANES, MOST_PRIORITY
from workers.monitor.actions import act, confirm_dialog
from workers.monitor.html.dialog import open_dialog
from workers.monitor.html.markup import fill
from workers.monitor.html.notice import line
from workers.monitor.readings.database_reading import read_database
from workers.records import idempotency_keys
from workers.records.tables import Run

_EXPLANATION = """
<p class="sl-sentence">More lanes send more requests at the same time, within the limits of the budget. Surplus lanes
stop after their current item.</p>
<p class="sl-sentence">The run with the higher priority goes first: among runs of one source, and among runs that share
a budget.</p>
"""


def ask(run: Run) -> None:
    """Open the dialog."""
    key = read_database(lambda: idempotency_keys.of_run(run.id, "tune"))
    open_dialog(f"Lanes and priority of run {run.id}", partial(_draw, run.id, run.lanes, run.priority, key))


def _draw(run_id: int, lanes: int, priority: int, key: str) -> None:
    st.html(fill(_EXPLANATION))
    left, right = st.columns(2)  # unbounded fields: a browser does not send a number that is out of bounds
    new_lanes = int(left.number_input(f"Lanes, 1 to {MOST_LANES:,}", value=lanes))
    new_priority = int(right.number_input(f"Priority, -{MOST_PRIORITY} to {MOST_PRIORITY}", value=priority))
    agreed, declined = confirm_dialog.buttons("Save")
    if agreed and (what := out_of_range(new_lanes, new_priority)):
        st.html(line("bad", "cross", f"Nothing was saved: {what}", alert=True))
        return
    if agreed:
        used = key_to_use(key, (lanes, priority), (new_lanes, new_priority))
        act.show_later(act.perform(partial(change, run_id, lanes, new_lanes, priority, new_priority), used))
    if agreed or declined:
        st.rerun()


def out_of_range(lanes: int, priority: int) -> str:
    """Return which value is out of range; empty where both can be set."""
    if not 1 <= lanes <= MOST_LANES:
        return f"a run has 1 to {MOST_LANES:,} lanes, not {lanes:,}."
    if abs(priority) > MOST_PRIORITY:
        return f"a priority is -{MOST_PRIORITY} to {MOST_PRIORITY}, not {priority:,}."
    return ""


def change(run_id: int, lanes: int, new_lanes: int, priority: int, new_priority: int) -> str:
    """Set what the person changed, and return the sentence for it. A value that was not changed is not written.

    Parameters:
      lanes(int), priority(int): As the person saw them.
      new_lanes(int), new_priority(int): As the person entered them.
    """
    changed = []
    if new_lanes != lanes:
        changed.append(f"{runner.set_lanes(run_id, new_lanes, **act.origin()).lanes} lanes")
    if new_priority != priority:
        changed.append(f"priority {runner.set_priority(run_id, new_priority, **act.origin()).priority}")
    return f"Run {run_id} has {' and '.join(changed)}" if changed else f"Run {run_id} is unchanged"


def key_to_use(key: str, before: tuple[int, int], after: tuple[int, int]) -> str:
    """Return the idempotency key; none where nothing is to be set: a later change can still use it."""
    return key if before != after else ""
