"""Prints the failed items of a run for `status RUN --failed`, and the command that retries exactly those."""

import dataclasses
import shlex

from workers.cli.printing import answer, say, show, table
from workers.records.tables import Run
from workers.reports.failure_groups import FailedItem, failed_items


def show_failed(run: Run, *, failure_class: str | None, fingerprint: str | None, last: int, as_json: bool) -> None:
    """Print the first failed items of a run that match, and say how many there are."""
    found, count = failed_items(run.id, failure_class=failure_class, fingerprint=fingerprint, limit=last)
    if as_json:
        answer([dataclasses.asdict(item) for item in found])
    elif found:
        show(table("id", "class", "fingerprint", "attempts", "reason", rows=[_row(item) for item in found]))
    which = _options(failure_class, fingerprint)
    if not found:
        say(_none(run, which))
        return
    listed = f"{len(found):,} of {count:,} failed items; `--last N` lists more" if len(found) < count else ""
    again = f"`retry {run.id}{which}` retries {'it' if count == 1 else 'them'}"
    single = f", `retry {run.id} --item {shlex.quote(found[0].external_id)}` a single one" if count > 1 else ""
    say("; ".join(part for part in (listed, again + single) if part))


def _row(item: FailedItem) -> tuple[object, ...]:
    refused = "" if item.retriable else " (rejected when the list was read: the next run reads it again)"
    return item.external_id, item.failure_class, item.fingerprint, item.attempts, item.reason + refused


def _options(failure_class: str | None, fingerprint: str | None) -> str:
    return (f" --class {failure_class}" if failure_class else "") + (
        f" --fingerprint {fingerprint}" if fingerprint else ""
    )


def _none(run: Run, which: str) -> str:
    if run.items_removed_at:
        return f"the items of run {run.id} were deleted by retention on {run.items_removed_at:%Y-%m-%d}"
    return f"run {run.id} has no failed items{f' that match{which}' if which else ''}"
