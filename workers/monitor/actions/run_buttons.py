"""The buttons on a run's page (pause, resume, cancel, retry, force, lanes), by its status; each opens its dialog."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import streamlit as st

from workers.errors import UsageError
from workers.monitor.access import current_user
from workers.monitor.actions import confirm_dialog, lanes_dialog, run_questions
from workers.monitor.actions.confirm_dialog import Question
from workers.monitor.html.button import button
from workers.monitor.html.formatting import plural
from workers.monitor.html.markdown import plain
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.readings.database_reading import read_database
from workers.monitor.readings.unreadable import Unreadable
from workers.records import runs
from workers.records.tables import ENDED, Run, RunStatus
from workers.reports.run_stats import RunStats

_READ_ONLY = """
<p class="sl-dim sl-read-only">Read-only access. Operators can pause, resume, cancel and retry runs.</p>
"""
_ROW = '<div class="sl-acts">{buttons}</div>'


@dataclass(frozen=True)
class Act:
    """Something a person can do with a run.

    Parameters:
      name(str): Its name, which the browser sends when the button is pressed.
      label(str), shape(str): The text and the icon of the button.
      question(Callable): Returns what the dialog asks; None: it opens the dialog for lanes and priority.
      first(bool): Whether it is the most likely next step.
    """

    name: str
    label: str
    shape: str
    question: Callable[[Run], Question] | None
    first: bool = False


def buttons_row(run: RunStats, *, is_stuck: bool, has_items: bool, retriable: int | None = None) -> Html:
    """Return the buttons; for a viewer, a line that says that only operators have them.

    Parameters:
      run(RunStats): The run.
      is_stuck(bool): Whether it can be forced.
      has_items(bool): Whether its items still exist: they are deleted after the retention period.
      retriable(int | None): How many of its failed items can be retried; None: all of them.
    """
    if not current_user.may_act():
        return fill(_READ_ONLY)
    offered = acts_of(run, is_stuck=is_stuck, has_items=has_items, retriable=retriable)
    return fill(_ROW, buttons=join(button(act.label, act.name, act.shape, first=act.first) for act in offered))


def press(run: RunStats, name: str, *, is_stuck: bool, has_items: bool) -> bool:
    """Open the dialog of the act with that name. Returns whether it is offered now. Parameters as `buttons_row`."""
    for act in acts_of(run, is_stuck=is_stuck, has_items=has_items) if current_user.may_act() else ():
        if act.name == name:
            open_for(run.id, act.question)
            return True
    return False


def acts_of(run: RunStats, *, is_stuck: bool, has_items: bool, retriable: int | None = None) -> Iterator[Act]:
    """Yield what a person can do with a run now. Parameters as `buttons_row`."""
    if run.status == RunStatus.RUNNING:
        yield Act("pause", "Pause", "pause", run_questions.pause)
    if run.status == RunStatus.PAUSED:
        yield Act("resume", "Resume", "play", run_questions.resume, first=True)
    if is_stuck:
        yield Act("force", "Force", "bolt", run_questions.force)
    if has_items and (label := _retry_label(run, retriable)):
        yield Act("retry", label, "replay", run_questions.retry_failed, first=run.status in ENDED)
    if run.status not in ENDED:
        yield Act("tune", "Lanes and priority", "tune", None)
        yield Act("cancel", "Cancel", "stop", run_questions.cancel)


def open_for(run_id: int, question: Callable[[Run], Question] | None) -> None:
    """Open the dialog of an act, with the facts as they are now."""
    try:
        run = read_database(lambda: runs.get(run_id))
        if question is None:
            lanes_dialog.ask(run)
        else:
            confirm_dialog.ask(read_database(lambda: question(run)))
    except (Unreadable, UsageError) as error:
        st.toast(plain(str(error)), icon=":material/warning:")


def _retry_label(run: RunStats, retriable: int | None) -> str:
    if run.started_at is None or run.status == RunStatus.CANCELLED:
        return ""
    if run.status == RunStatus.FAILED and not run.failed:
        return "Continue"
    number = run.failed if retriable is None else min(run.failed, retriable)
    if run.failed and not number:
        return "Retry"  # its dialog says why no item can be retried
    return f"Retry {plural(number, 'failed item')}" if number else ""
