"""The questions before each act on a run: what will come of it, from the facts as they are when it is asked."""

from functools import partial
from typing import Any

from workers.connections import database
from workers.control import forcing, retry, runner
from workers.errors import UsageError
from workers.monitor.access import viewer
from workers.monitor.actions.confirm import Question
from workers.monitor.html.formatting import count, duration, so_many
from workers.records import activation, idempotency_keys, old_rows, run_end
from workers.records.tables import ACTIVE, ENDED, Run, RunStatus
from workers.reports import budget_text, eta
from workers.reports.budget_states import budget_state_of
from workers.reports.failure_groups import FailureGroup, retriable_count

#: So much of a reason is repeated in a question.
_REASON_LENGTH = 160


def pause(run: Run) -> Question:
    """Ask whether to pause a running run."""
    later = "The list will be read on from there later"
    still = f"{_capital(_open(run))} will stay open" if run.discovered_at else later
    return Question(
        f"Pause run {run.id}?",
        (
            f"Of {_name(run)}: {_lanes(run)} after the item each has in hand. {still}.",
            "The API budget will stay with other runs.",
            "Resume will go on from here.",
        ),
        f"Pause run {run.id}",
        partial(_pause, run.id),
        idempotency_keys.of_run(run.id, "pause"),
    )


def resume(run: Run) -> Question:
    """Ask whether to go on with a paused run."""
    going = f"{_open(run)} will be asked for" if run.discovered_at else "its list will be read on from where it stopped"
    state = budget_state_of(run)
    closed = budget_text.why_closed(state, database.now()) if state else ""
    not_yet = (f"Its API will not be asked yet: {closed}.",) if closed else ()
    return Question(
        f"Resume run {run.id}?",
        (f"Of {_name(run)}: {going}, on {so_many(run.lanes, 'lane')}.", *not_yet),
        f"Resume run {run.id}",
        partial(_resume, run.id),
        idempotency_keys.of_run(run.id, "resume"),
    )


def cancel(run: Run) -> Question:
    """Ask whether to call a run off."""
    return Question(
        f"Cancel run {run.id}?",
        tuple(text for text in (_left_undone(run), _next(run), "This cannot be undone.") if text),
        f"Cancel run {run.id}",
        partial(_cancel, run.id, run.status in ACTIVE),
        idempotency_keys.of_run(run.id, "cancel"),
    )


def retry_failed(run: Run, group: FailureGroup | None = None) -> Question:
    """Ask whether to try a run's failed items again.

    Parameters:
      group(FailureGroup | None): Only those that failed alike; it has a class and a fingerprint.
    """
    failure_class, fingerprint = (group.failure_class, group.fingerprint) if group else (None, None)
    number = retriable_count(run.id, failure_class, fingerprint)
    broken = group is None and run.status == RunStatus.FAILED and _is_unfinished(run)
    if not number and not broken:
        wanted = retry.Wanted.of(failure_class, fingerprint, ())
        return Question(f"Retry failed items of run {run.id}?", (f"{retry.why_none(run.id, wanted)}.",))
    alike = f"They failed alike: {group.reason[:_REASON_LENGTH]}" if group else ""
    said = (_again(run, number) if number else "", alike, _goes_on(run, broken=broken))
    return Question(
        f"Retry {_items(number, 'failed item')} of run {run.id}?" if number else f"Go on with run {run.id}?",
        tuple(text for text in said if text),
        f"Retry {_items(number)}" if number else f"Go on with run {run.id}",
        partial(_retry, run.id, failure_class, fingerprint),
        idempotency_keys.of_run(run.id, f"retry {failure_class or ''} {fingerprint or ''}"),
    )


def force(run: Run) -> Question:
    """Ask whether to make happen what has not happened by itself."""
    try:
        found = forcing.find_stuck(run)
    except UsageError as error:
        return Question(f"Force run {run.id}?", (str(error),))
    return Question(
        f"Force run {run.id}?",
        (
            f"Run {run.id} {found.what}, for {duration(found.lasts_seconds)} now. Forcing will make that happen.",
            "Items that are taken from a worker that hangs will be asked for again; what it still brings is refused.",
        ),
        f"Force run {run.id}",
        partial(_force, run.id),
        idempotency_keys.of_run(run.id, "force"),
    )


# --- the acts ---------------------------------------------------------------------------------------------------------


def _by() -> dict[str, Any]:
    return {"who": viewer.who(), "door": "monitor"}


def _pause(run_id: int) -> str:
    runner.pause(run_id, **_by())
    return f"Run {run_id} is paused"


def _resume(run_id: int) -> str:
    runner.resume(run_id, **_by())
    return f"Run {run_id} goes on"


def _cancel(run_id: int, was_active: bool) -> str:
    runner.cancel(run_id, **_by())
    return "" if was_active else f"Run {run_id} was called off"  # of an active one `news` tells


def _retry(run_id: int, failure_class: str | None, fingerprint: str | None) -> str:
    number = runner.retry_failed(run_id, failure_class=failure_class, fingerprint=fingerprint, **_by())
    if not number:
        return f"Run {run_id} goes on"
    return f"{_items(number)} of run {run_id} {'is' if number == 1 else 'are'} tried again"


def _force(run_id: int) -> str:
    return f"Run {run_id}: {runner.force(run_id, **_by())}"


# --- in words ---------------------------------------------------------------------------------------------------------


def _name(run: Run) -> str:
    return f"{run.source} for {run.tenant}" if run.tenant else str(run.source)


def _items(number: int, noun: str = "item") -> str:
    return so_many(number, noun)


def _open(run: Run) -> str:
    done = run.succeeded_count + run.failed_count + run.skipped_count
    about = "about " if run.status == RunStatus.RUNNING else ""  # it goes on while the question stands there
    return f"{about}{_items(max(0, (run.total_count or 0) - done), 'open item')}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lanes(run: Run) -> str:
    return "its lane will stop" if run.lanes == 1 else f"the {count(run.lanes)} lanes will stop"


def _is_unfinished(run: Run) -> bool:
    return run.discovered_at is None or run_end.has_open_items(run.id) or old_rows.has_failed(run.id)


def _left_undone(run: Run) -> str:
    if run.started_at is None:
        return f"Of {_name(run)}: it has not begun, and nothing will be asked of the API."
    if run.discovered_at is None:
        return f"Of {_name(run)}: the reading of its list will stop; what it has found so far will not be asked for."
    return f"Of {_name(run)}: {_open(run)} will not be fetched; what is in stays in."


def _next(run: Run) -> str:
    """Say which run starts in its place."""
    following = activation.next_pending(run.source, run.tenant) if run.status in ACTIVE else None
    return f"Run {following.id}, waiting behind it, will start." if following else ""


def _again(run: Run, number: int) -> str:
    state = budget_state_of(run)
    per_second = eta.steady(state)[0] if state else 0.0
    time = f", about {duration(max(1.0, number / per_second))} of its API's budget" if per_second else ""
    each = "It will be asked for again" if number == 1 else "Each will be asked for again"
    return f"{each}: {so_many(number, 'request')}{time}."


def _what_is_left(run: Run) -> str:
    if run.discovered_at is None:
        return "Its list will be read on from where it broke off"
    if old_rows.has_failed(run.id):
        return "The rows that it could not remove will be tried again"
    return "What it left open will be asked for"


def _goes_on(run: Run, *, broken: bool) -> str:
    if run.status == RunStatus.PAUSED:
        return "The run will stay paused: they will wait until it is resumed."
    if run.status not in ENDED:
        return "The run is going on: they will join what it has still to do."
    said = f"{_what_is_left(run)}. " if broken else ""
    ahead = activation.active(run.source, run.tenant)
    if ahead:
        return f"{said}The run will be pending: it will wait behind run {ahead.id}, which is {ahead.status}."
    return f"{said}The run will be running again at once."
