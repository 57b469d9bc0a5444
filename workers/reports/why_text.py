"""Why in words: each reason as every door says it. One sentence a code, and no other place that words it."""

from datetime import datetime

from workers.reports import budget_text
from workers.reports.reasons import Reason
from workers.reports.why import Why
from workers.settings import get_settings
from workers.text.durations import duration

_WORKER = "start `python -m workers worker`"
_SENTENCES: dict[Reason, str] = {
    Reason.SCHEDULED: "scheduled for {day}",
    Reason.OVERDUE: "overdue since {day}: {what}",
    Reason.BEHIND: "behind run {run}",
    Reason.STARTING: "about to start",
    Reason.PAUSED: "paused; resume to go on",
    Reason.PAUSED_ITSELF: "paused: {what}",
    Reason.REDIS_AWAY: "{what}: no permit without it. To do: {repair}",
    Reason.REDIS_REFUSES: "{what}: no permit without it. To do: {repair}",
    Reason.BROKER_AWAY: "the broker: {what}; its messages reach no worker. To do: {repair}",
    Reason.DATABASE_AWAY: "{what}",
    Reason.NO_WORKER: f"{{what}}; {_WORKER}",
    Reason.WORKERS_STOPPING: f"every worker was asked to stop, and takes no more messages; {_WORKER}",
    Reason.SOURCE_NOT_ON_WORKERS: (
        "no worker that runs has the source {what}: they were started before the sources changed; restart them"
    ),
    Reason.SOURCE_UNKNOWN: (
        "there is no source named {what} here any more: add it to SLUICE_SOURCES again, or cancel the run"
    ),
    Reason.BUDGET_UNKNOWN: "its budget cannot be told: does get_connector of its source fail?",
    Reason.API_PAUSE: "{what}",
    Reason.CANARY: "{what}",
    Reason.WINDOW_FULL: "{what}",
    Reason.WINDOW_TAKEN_AS_FULL: "{what}",
    Reason.PACED: "{what}",
    Reason.NO_PERMIT: "{what}",
    Reason.LIST_BACKS_OFF: "{what}; again in {left}",
    Reason.LANES_BACK_OFF: "its lanes ended in an error, {number} of {most} in a row: {what}; again in {left}",
    Reason.ITEMS_BACK_OFF: "all open items wait for another attempt; the next in {left}",
    Reason.GIVES_WAY: "gives way to run {run} (priority {number}); one lane goes on",
    Reason.NOTES_ROWS: "notes which rows are there, before it asks for its list",
    Reason.REMOVES_ROWS: "removes the rows that are no longer in its list: {number} so far",
    Reason.FINALIZING: "every item has ended; about to be closed",
    Reason.LIST_CLAIMED: "waits for the answer to its list page; if its worker died, it is asked for again at {at}",
    Reason.ITEMS_CLAIMED: (
        "waits for the answers to {items} that are asked for; if their worker died, they are asked for again at {at}"
    ),
    Reason.THREADS_BUSY: "waits for a free thread: all {number} of the workers have other messages in work",
    Reason.QUEUED: "waits for its messages: they are in the queue, and those that were lost are sent again",
    Reason.LANES_SILENT: "nobody works on it: is `python -m workers worker` running?",
    Reason.NO_SCHEDULER: "it has not been heard of for a while, and {what}",
    Reason.UNKNOWN: "no progress for {seconds}, and no reason is known: see the log of the workers",
}


def words(why: Why, now: datetime) -> str:
    """Return a reason as a sentence.

    Parameters:
      why(Why): The reason.
      now(datetime): When it was found.
    """
    left = (why.until - now).total_seconds() if why.until else 0.0
    said = _SENTENCES[why.code].format(
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
    return said + _more(why, now, left)


def _more(why: Why, now: datetime, left: float) -> str:
    """Return what some reasons say beside their sentence."""
    if why.code == Reason.OVERDUE and not why.what:
        return "it starts with the next look of the scheduler"
    if why.code in (Reason.PAUSED, Reason.PAUSED_ITSELF) and why.until:
        return f"; its API is not asked until {budget_text.instant(now, left)}"
    if why.code == Reason.ITEMS_BACK_OFF and why.what:
        return f"; the last one failed: {why.what}"
    return ""
