"""finalize(run_id): are all items terminal? Then close the run and start the next one of its source."""

import logging

from workers import broker, runs

log = logging.getLogger(__name__)


def finalize(run_id: int) -> None:
    """Complete the run if no item is left that can change; else do nothing: the reaper looks again."""
    if not runs.complete_if_done(run_id):
        return
    run = runs.get(run_id)
    log.info(
        "run %d completed: %d succeeded, %d skipped, %d failed",
        run_id,
        run.succeeded_count,
        run.skipped_count,
        run.failed_count,
    )
    start_next(run.source, run.tenant)


def start_next(source: str, tenant: str | None) -> None:
    """Start the next pending run of a source and tenant, where none is active. A transaction of its own."""
    waiting = runs.next_pending(source, tenant)
    if waiting and runs.activate(waiting.id):
        log.info("run %d started", waiting.id)
        broker.send("discover", waiting.id)
