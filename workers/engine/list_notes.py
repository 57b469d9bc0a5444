"""Writes warnings about a complete list into the run's timeline: a wrong total, a short page, rows of other tenants."""

import logging
from collections.abc import Mapping
from typing import Any

from workers.records import runs
from workers.records.tables import Run

log = logging.getLogger(__name__)


def write(run: Run, came: int, short_by_page: tuple[int, int], kept: Mapping[str, Any]) -> None:
    """Within the transaction that records the last page: write the warnings about the list.

    Parameters:
      came(int): How many items the list had in all.
      short_by_page(tuple[int, int]): How many items the last page held, and how many were requested.
      kept(Mapping): What the run's metadata keeps of the pages: see `discovery`.
    """
    _note_a_wrong_total(run, came, kept)
    _note_rows_of_others(run, kept)
    _note_a_short_end(run, *short_by_page, kept)


def _note_rows_of_others(run: Run, kept: Mapping[str, Any]) -> None:
    """Write a line if runs of other tenants write the same rows."""
    others = kept["rows_of_others"]
    if not others:
        return
    counts = ", ".join(f"{count:,} by {tenant or 'runs without a tenant'}" for tenant, count in sorted(others.items()))
    detail = (
        f"rows of this list were written for others before: {counts}. Each run overwrites what the other wrote: let "
        f"unique_by hold the tenant as well, as in unique_by = ('shop', 'external_id')"
    )
    log.warning("run %d: %s", run.id, detail)
    runs.note(run.id, "rows shared by tenants", who="sluice", door="discovery", detail=detail)


def _note_a_wrong_total(run: Run, came: int, kept: Mapping[str, Any]) -> None:
    """Write a line if the list had another number of items than the API stated."""
    first, last = kept["first_total"], kept["last_total"]
    if last is None or last == came:
        return
    stated = f"{last:,}" if first == last else f"{first:,} at first and {last:,} at last"
    detail = (
        f"the API stated a total of {stated}; {came:,} items came. If the list changed while it was read, the next run "
        f"finds what was missed; if the API counts otherwise, set total_key = None"
    )
    log.warning("run %d: %s", run.id, detail)
    runs.note(run.id, "list changed", who="sluice", door="discovery", detail=detail)


def _note_a_short_end(run: Run, came: int, per_page: int, kept: Mapping[str, Any]) -> None:
    """Write a line if the last page was shorter than requested, and no total confirms that the list is complete."""
    if kept["last_total"] is not None or not (0 < came < per_page or kept["passed_over"]):
        return
    if kept["passed_over"]:
        detail = (
            f"the API gave fewer items a page than the {per_page:,} that were asked for, and next_cursor grew by more "
            f"than came, {kept['passed_over']:,} in all: let it step by what came, as in cursor + len(data)"
        )
    else:
        detail = (
            f"the list ended at a page of {came:,} where {per_page:,} were asked for, and the API states no total: if "
            f"it gives shorter pages than it is asked for, let next_cursor end the list at an empty page"
        )
    log.info("run %d: %s", run.id, detail)
    runs.note(run.id, "short last page", who="sluice", door="discovery", detail=detail)
