"""Ends a run in which no item can change any more: a fresh run removes old rows first; then the next run starts."""

import logging

from workers.connections import database
from workers.engine import row_removal, unknown_source
from workers.limiter.run_signals import RunSignals
from workers.messaging import broker
from workers.records import activation, old_rows, run_completion, run_connector, runs
from workers.records.tables import Run

log = logging.getLogger(__name__)


def finalize(run_id: int) -> None:
    """End the run if no item can change any more; else do nothing: the reaper sends the message again."""
    run = Run.get_or_none(Run.id == run_id)
    removed = None
    if run and run.options.get("fresh"):
        if unknown_source.is_unknown(run):
            return  # the reaper sends the message again, until a worker gets it that knows the source
        removed = row_removal.work(run)
    with database.db.atomic():
        if not run_completion.complete_if_done(run_id, removed):
            return
        if removed and not removed.failure:
            old_rows.close(run_id)
    run = runs.get(run_id)
    log.info(
        "run %d %s: %d succeeded, %d skipped, %d failed",
        run_id,
        run.status,
        run.succeeded_count,
        run.skipped_count,
        run.failed_count,
    )
    tidy_up(run)
    if removed and not removed.failure:
        old_rows.clear(run_id)


def tidy_up(run: Run) -> None:
    """After a run has ended: release its share of the budget, start the next run. To do it twice is harmless."""
    _release_share(run)
    start_next(run.source, run.tenant)


def _release_share(run: Run) -> None:
    """Give the run's share of its budget to the other runs on that budget."""
    try:
        RunSignals(run_connector.of(run).limiter.ledger).ended(run.id)
    except Exception as error:  # a user's get_connector can fail in any way; then the share ends a second later
        log.debug("run %d: its share of the budget was not released (%s)", run.id, type(error).__name__)


def start_next(source: str, tenant: str | None) -> None:
    """Start the next pending run of a source and tenant, if none is active, in a transaction of its own."""
    waiting = activation.next_pending(source, tenant)
    if waiting and activation.activate(waiting.id):
        log.info("run %d started", waiting.id)
        broker.send("discover", waiting.id)
