"""Run checks: checks which running runs make no progress, and why."""

from collections.abc import Iterator

from workers.connections import database
from workers.doctor import database_checks
from workers.doctor.finding import Finding, ok, warning
from workers.records import runs
from workers.reports import run_stats
from workers.reports.reasons import NEEDS_A_PERSON, Reason

#: How many running runs are checked.
_MOST = 20


def stalled() -> Iterator[Finding]:
    """Check whether the running runs make progress."""
    if not database_checks.is_there():
        return
    with database.connection():
        found = run_stats.all_stats(runs.running()[:_MOST])
    for one in found:
        if not one.why_code:
            continue
        what = f"run {one.id} of {one.source}: {one.why}"
        if Reason(one.why_code) in NEEDS_A_PERSON:
            yield warning("runs", what, f"`python -m workers status {one.id}`; docs/operations.md has {one.why_code}")
        else:
            yield ok("runs", what)
