"""finalize(run_id): has every item ended? Then remove what a fresh run may, close the run, start the next one."""

import logging

from workers.connections import database
from workers.engine import row_removal
from workers.messaging import broker
from workers.records import old_rows, run_connector, runs
from workers.records.tables import Run

log = logging.getLogger(__name__)


def finalize(run_id: int) -> None:
    """End the run if no item is left that can change; else do nothing: the reaper looks again."""
    found = Run.get_or_none(Run.id == run_id)
    removed = row_removal.work(found) if found and found.options.get("fresh") else None
    with database.db.atomic():
        if not runs.complete_if_done(run_id, removed):
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
    """After a run has ended: let others have its share of the budget, start the next one. Twice is harmless."""
    _tell_budget(run)
    start_next(run.source, run.tenant)


def _tell_budget(run: Run) -> None:
    """Let the others on its budget have what was kept for it."""
    try:
        run_connector.of(run).limiter.ended(run.id)
    except Exception as error:  # a user's get_connector may fail in any way; then they have it a second later
        log.debug("run %d: its budget was not told (%s)", run.id, type(error).__name__)


def start_next(source: str, tenant: str | None) -> None:
    """Start the next pending run of a source and tenant, where none is active. A transaction of its own."""
    waiting = runs.next_pending(source, tenant)
    if waiting and runs.activate(waiting.id):
        log.info("run %d started", waiting.id)
        broker.send("discover", waiting.id)
