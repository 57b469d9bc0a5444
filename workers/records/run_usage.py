"""Adds to a run's counters: requests, rate-limit hits, waits, idle time."""

from typing import Any

from workers.limiter.permits import Usage
from workers.records.tables import (
    Run,
)


def add(run_id: int, usage: Usage) -> None:
    """Add a lane's requests, rate-limit hits and waits."""
    if usage:
        Run.update(update_values(usage)).where(Run.id == run_id).execute()


def add_idle(run_id: int, seconds: float) -> None:
    """Add time in which no process could work on the run."""
    Run.update({Run.idle_seconds: Run.idle_seconds + seconds}).where(Run.id == run_id).execute()


def update_values(usage: Usage) -> dict[Any, Any]:
    """Return the columns of an UPDATE that adds `usage` to a run."""
    return {
        Run.requests_count: Run.requests_count + usage.requests,
        Run.rate_limit_hits_count: Run.rate_limit_hits_count + usage.hits,
        Run.rate_limit_sleeps_count: Run.rate_limit_sleeps_count + usage.sleeps,
        Run.total_sleep_seconds: Run.total_sleep_seconds + usage.slept_seconds,
    }
