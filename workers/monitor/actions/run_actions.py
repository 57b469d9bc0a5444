"""The acts on a run: a button for each that its status allows. Each asks first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import streamlit as st

from workers.errors import UsageError
from workers.monitor.access import viewer
from workers.monitor.actions import confirm, lanes_dialog, questions
from workers.monitor.actions.confirm import Question
from workers.monitor.html.button import button
from workers.monitor.html.formatting import so_many
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.readings.database_reading import reading
from workers.monitor.readings.unavailable import Unreadable
from workers.records import runs
from workers.records.tables import ENDED, Run, RunStatus
from workers.reports.run_stats import RunStats

_LOOKING = """
<p class="sl-dim sl-looking">You may look; pausing, resuming, cancelling and retrying are for operators.</p>
"""
_ROW = '<div class="sl-acts">{buttons}</div>'


@dataclass(frozen=True)
class Act:
    """Something a person may do with a run.

    Parameters:
      name(str): Its name, which the button tells when it is pressed.
      label(str), shape(str): What the button shows.
      question(Callable): Asks about it; None: it opens the dialog for lanes and priority.
      first(bool): Whether it is what one most likely wants.
    """

    name: str
    label: str
    shape: str
    question: Callable[[Run], Question] | None
    first: bool = False


def acts_row(run: RunStats, *, is_stuck: bool, has_items: bool, retriable: int | None = None) -> Html:
    """Return the buttons; for who may not act, a line that says so.

    Parameters:
      run(RunStats): The run.
      is_stuck(bool): Whether it may be forced.
      has_items(bool): Whether its items are there still: they go when they are old.
      retriable(int | None): How many of its failed items can be tried again; None: all of them.
    """
    if not viewer.may_act():
        return fill(_LOOKING)
    offered = acts_of(run, is_stuck=is_stuck, has_items=has_items, retriable=retriable)
    return fill(_ROW, buttons=join(button(act.label, act.name, act.shape, first=act.first) for act in offered))


def press(run: RunStats, name: str, *, is_stuck: bool, has_items: bool) -> bool:
    """Ask about the act of that name. Returns whether it is offered now. Other parameters as for `acts_row`."""
    for act in acts_of(run, is_stuck=is_stuck, has_items=has_items) if viewer.may_act() else ():
        if act.name == name:
            start(run.id, act.question)
            return True
    return False


def acts_of(run: RunStats, *, is_stuck: bool, has_items: bool, retriable: int | None = None) -> Iterator[Act]:
    """Yield what a person may do with a run now. Parameters as for `acts_row`."""
    if run.status == RunStatus.RUNNING:
        yield Act("pause", "Pause", "pause", questions.pause)
    if run.status == RunStatus.PAUSED:
        yield Act("resume", "Resume", "play", questions.resume, first=True)
    if is_stuck:
        yield Act("force", "Force", "bolt", questions.force)
    if has_items and (label := _retry_label(run, retriable)):
        yield Act("retry", label, "replay", questions.retry_failed, first=run.status in ENDED)
    if run.status not in ENDED:
        yield Act("tune", "Lanes, priority", "tune", None)
        yield Act("cancel", "Cancel", "stop", questions.cancel)


def start(run_id: int, question: Callable[[Run], Question] | None) -> None:
    """Open the dialog of an act, with the facts as they are now."""
    try:
        run = reading(lambda: runs.get(run_id))
        if question is None:
            lanes_dialog.ask(run)
        else:
            confirm.ask(reading(lambda: question(run)))
    except (Unreadable, UsageError) as error:
        st.toast(confirm.plain(str(error)), icon=":material/warning:")


def _retry_label(run: RunStats, retriable: int | None) -> str:
    if run.started_at is None or run.status == RunStatus.CANCELLED:
        return ""
    if run.status == RunStatus.FAILED and not run.failed:
        return "Go on"
    number = run.failed if retriable is None else min(run.failed, retriable)
    if run.failed and not number:
        return "Retry"  # its dialog says why none can be
    return f"Retry {so_many(number, 'failed item')}" if number else ""
