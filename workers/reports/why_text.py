"""Why text: words each reason code in one sentence, the same on every page, command and log line."""

from datetime import datetime

from workers.reports import budget_text
from workers.reports.reasons import Reason
from workers.reports.why import Why
from workers.settings import get_settings
from workers.text.durations import duration

_START_WORKER = "start `python -m workers worker`"
_SENTENCES: dict[Reason, str] = {
    Reason.SCHEDULED: "scheduled for {day}",
    Reason.OVERDUE: "overdue since {day}: {what}",
    Reason.BEHIND: "behind run {run}",
    Reason.STARTING: "about to start",
    Reason.PAUSED: "paused; `resume` continues it",
    Reason.PAUSED_ITSELF: "paused: {what}",
    Reason.REDIS_AWAY: "{what}: no permit without it. To do: {repair}",
    Reason.REDIS_REFUSES: "{what}: no permit without it. To do: {repair}",
    Reason.BROKER_AWAY: "the broker: {what}; no message reaches a worker. To do: {repair}",
    Reason.DATABASE_AWAY: "{what}. To do: {repair}; the run continues automatically afterwards",
    Reason.NO_WORKER: "{what}; {repair}",
    Reason.WORKERS_STOPPING: f"every worker was asked to stop, and takes no more messages; {_START_WORKER}",
    Reason.SOURCE_NOT_ON_WORKERS: (
        "no running worker has the source {what}: the workers started before the sources changed; restart them"
    ),
    Reason.SOURCE_UNKNOWN: (
        "there is no source named {what} here any more: add it to SLUICE_SOURCES again, or cancel the run"
    ),
    Reason.BUDGET_UNKNOWN: "its budget is unknown: does get_connector of its source fail?",
    Reason.API_PAUSE: "{what}",
    Reason.CANARY: "{what}",
    Reason.WINDOW_FULL: "{what}",
    Reason.WINDOW_TAKEN_AS_FULL: "{what}",
    Reason.PACED: "{what}",
    Reason.NO_PERMIT: "{what}",
    Reason.LIST_BACKS_OFF: "{what}; again in {left}",
    Reason.LANES_BACK_OFF: "its lanes crashed, {number} of {most} times in a row: {what}; again in {left}",
    Reason.ITEMS_BACK_OFF: "all open items wait for another attempt; the next one in {left}",
    Reason.GIVES_WAY: "gives way to run {run} (priority {number}); one lane continues",
    Reason.NOTES_ROWS: "records which rows exist, before it requests its list",
    Reason.REMOVES_ROWS: "removes the rows that are no longer in its list: {number} so far",
    Reason.FINALIZING: "every item has ended; the run is about to be completed",
    Reason.LIST_CLAIMED: "waits for the response to a list page; if its worker died, it is requested again at {at}",
    Reason.ITEMS_CLAIMED: "waits for the responses to {items}; if their worker died, they are requested again at {at}",
    Reason.THREADS_BUSY: "waits for a free thread: all {number} threads of the workers are busy with other messages",
    Reason.QUEUED: "its messages are in the queue; lost messages are sent again",
    Reason.LANES_SILENT: "its messages were lost; the scheduler sends them again. Does `python -m workers worker` run?",
    Reason.NO_SCHEDULER: "its messages were lost, and {what}. To do: {repair}",
    Reason.UNKNOWN: "no progress for {seconds}, for an unknown reason: see the log of the workers",
}


def words(why: Why, now: datetime) -> str:
    """Return a reason as a sentence.

    Parameters:
      why(Why): The reason.
      now(datetime): When it was found.
    """
    left = (why.until - now).total_seconds() if why.until else 0.0
    sentence = _SENTENCES[why.code].format(
        what=why.what,
        repair=why.repair,
        run=why.run_id,
        number=f"{why.number:,}",
        most=get_settings().max_attempts,
        items="1 item" if why.number == 1 else f"{why.number:,} items",
        seconds=duration(why.number),
        left=duration(left),
        at=budget_text.instant(now, left),
        day=f"{why.until:%Y-%m-%d %H:%M:%S} UTC" if why.until else "",
    )
    return sentence + _addition(why, now, left)


def _addition(why: Why, now: datetime, left: float) -> str:
    """Return what some reasons add to their sentence."""
    if why.code == Reason.OVERDUE and not why.what:
        return "the scheduler starts it within seconds"
    if why.code in (Reason.PAUSED, Reason.PAUSED_ITSELF) and why.until:
        return f"; no request is sent to its API until {budget_text.instant(now, left)}"
    if why.code == Reason.ITEMS_BACK_OFF and why.what:
        return f"; the last one failed: {why.what}"
    return ""
