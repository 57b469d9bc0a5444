"""What the dialog of each act on a run asks: the consequences, computed from the run as it is when the dialog opens."""

from functools import partial

from workers.connections import database
from workers.control import forcing, retry_selection, runner
from workers.errors import UsageError
from workers.monitor.actions import act
from workers.monitor.actions.confirm_dialog import Question
from workers.monitor.html.formatting import count, plural, source_name
from workers.records import activation, idempotency_keys, old_rows, run_completion
from workers.records.tables import ACTIVE, ENDED, Run, RunStatus
from workers.reports import budget_text, eta
from workers.reports.budget_states import budget_state_of
from workers.reports.failure_groups import FailureGroup, retriable_count
from workers.text.durations import duration

#: How many characters of a failure reason a dialog repeats.
_REASON_LENGTH = 160


def pause(run: Run) -> Question:
    """Ask whether to pause a running run."""
    still = f"{_capital(_open(run))} stay open" if run.discovered_at else "Reading the list continues after the pause"
    return Question(
        f"Pause run {run.id}?",
        (
            f"{source_name(run.source, run.tenant)}: {_lanes(run)} after the current item. {still}.",
            "Other runs can use the API budget meanwhile.",
            "Resume continues from this point.",
        ),
        f"Pause run {run.id}",
        partial(_pause, run.id),
        idempotency_keys.of_run(run.id, "pause"),
    )


def resume(run: Run) -> Question:
    """Ask whether to resume a paused run."""
    whose = source_name(run.source, run.tenant)
    next_step = (
        f"{_open(run)} will be requested" if run.discovered_at else "reading the list continues where it stopped"
    )
    state = budget_state_of(run)
    closed = budget_text.why_closed(state, database.now()) if state else ""
    not_yet = (f"No request can be sent yet: {closed}.",) if closed else ()
    return Question(
        f"Resume run {run.id}?",
        (f"{whose}: {next_step}, on {plural(run.lanes, 'lane')}.", *not_yet),
        f"Resume run {run.id}",
        partial(_resume, run.id),
        idempotency_keys.of_run(run.id, "resume"),
    )


def cancel(run: Run) -> Question:
    """Ask whether to cancel a run."""
    return Question(
        f"Cancel run {run.id}?",
        tuple(text for text in (_not_imported(run), _next(run), "This cannot be undone.") if text),
        f"Cancel run {run.id}",
        partial(_cancel, run.id, run.status in ACTIVE),
        idempotency_keys.of_run(run.id, "cancel"),
    )


def retry_failed(run: Run, group: FailureGroup | None = None) -> Question:
    """Ask whether to retry failed items of a run.

    Parameters:
      group(FailureGroup | None): Only the items of this group, which has a class and a fingerprint; None: all.
    """
    failure_class, fingerprint = (group.failure_class, group.fingerprint) if group else (None, None)
    number = retriable_count(run.id, failure_class, fingerprint)
    broken = group is None and run.status == RunStatus.FAILED and _is_unfinished(run)
    if not number and not broken:
        wanted = retry_selection.Wanted.of(failure_class, fingerprint, ())
        return Question(f"Retry failed items of run {run.id}?", (f"{retry_selection.why_none(run.id, wanted)}.",))
    common = f"All of them failed with: {group.reason[:_REASON_LENGTH]}" if group else ""
    texts = (_requests(run, number) if number else "", common, _afterwards(run, broken=broken))
    return Question(
        f"Retry {plural(number, 'failed item')} of run {run.id}?" if number else f"Continue run {run.id}?",
        tuple(text for text in texts if text),
        f"Retry {plural(number, 'item')}" if number else f"Continue run {run.id}",
        partial(_retry, run.id, failure_class, fingerprint),
        idempotency_keys.of_run(run.id, f"retry {failure_class or ''} {fingerprint or ''}"),
    )


def force(run: Run) -> Question:
    """Ask whether to force a change of a run that is overdue."""
    try:
        step = forcing.find_stuck(run)
    except UsageError as error:
        return Question(f"Force run {run.id}?", (str(error),))
    return Question(
        f"Force run {run.id}?",
        (
            f"Run {run.id} {step.what}, for {duration(step.lasts_seconds)} now. Force completes this step.",
            "Items of a worker that hangs are requested again; a result that it still delivers is rejected.",
        ),
        f"Force run {run.id}",
        partial(_force, run.id),
        idempotency_keys.of_run(run.id, "force"),
    )


# --- the acts ---------------------------------------------------------------------------------------------------------


def _pause(run_id: int) -> str:
    runner.pause(run_id, **act.origin())
    return f"Run {run_id} is paused"


def _resume(run_id: int) -> str:
    runner.resume(run_id, **act.origin())
    return f"Run {run_id} is resumed"


def _cancel(run_id: int, was_active: bool) -> str:
    runner.cancel(run_id, **act.origin())
    return "" if was_active else f"Run {run_id} is cancelled"  # for an active one, `toasts` shows its end


def _retry(run_id: int, failure_class: str | None, fingerprint: str | None) -> str:
    number = runner.retry_failed(run_id, failure_class=failure_class, fingerprint=fingerprint, **act.origin())
    return f"Run {run_id}: {plural(number, 'item')} will be retried" if number else f"Run {run_id} continues"


def _force(run_id: int) -> str:
    return f"Run {run_id}: {runner.force(run_id, **act.origin())}"


# --- in words ---------------------------------------------------------------------------------------------------------


def _open(run: Run) -> str:
    done = run.succeeded_count + run.failed_count + run.skipped_count
    about = "about " if run.status == RunStatus.RUNNING else ""  # the number falls while the dialog is open
    return f"{about}{plural(max(0, (run.total_count or 0) - done), 'open item')}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lanes(run: Run) -> str:
    return "its lane stops" if run.lanes == 1 else f"its {count(run.lanes)} lanes stop"


def _is_unfinished(run: Run) -> bool:
    return run.discovered_at is None or run_completion.has_open_items(run.id) or old_rows.has_failed(run.id)


def _not_imported(run: Run) -> str:
    whose = source_name(run.source, run.tenant)
    if run.started_at is None:
        return f"{whose}: the run has not started. No request will be sent."
    if run.discovered_at is None:
        return f"{whose}: reading the list stops. Items that were found so far will not be requested."
    return f"{whose}: {_open(run)} will not be imported. Imported items stay."


def _next(run: Run) -> str:
    """Say which run starts in its place."""
    following = activation.next_pending(run.source, run.tenant) if run.status in ACTIVE else None
    return f"Run {following.id}, which waits behind it, will start." if following else ""


def _requests(run: Run, number: int) -> str:
    """Say how many requests a retry sends, and how much time of the budget they take."""
    state = budget_state_of(run)
    per_second = eta.steady(state)[0] if state else 0.0
    time = f", about {duration(max(1.0, number / per_second))} of the API's budget" if per_second else ""
    each = "The item is" if number == 1 else "Each item is"
    return f"{each} requested again: {plural(number, 'request')}{time}."


def _what_is_left(run: Run) -> str:
    if run.discovered_at is None:
        return "Reading the list continues where it stopped."
    if old_rows.has_failed(run.id):
        return "Rows that could not be removed are tried again."
    return "Open items are requested."


def _afterwards(run: Run, *, broken: bool) -> str:
    if run.status == RunStatus.PAUSED:
        return "The run stays paused: the items wait until it is resumed."
    if run.status not in ENDED:
        return "The run continues; these items are added to its open items."
    left = f"{_what_is_left(run)} " if broken else ""
    ahead = activation.active(run.source, run.tenant)
    if ahead:
        return f"{left}The run becomes pending: it waits behind run {ahead.id}, which is {ahead.status}."
    return f"{left}The run is running again immediately."
