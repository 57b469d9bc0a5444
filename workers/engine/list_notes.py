"""What a list's end leaves in the run's timeline: another number of items than stated, rows of other tenants."""

import logging
from collections.abc import Mapping
from typing import Any

from workers.records import runs
from workers.records.tables import Run

log = logging.getLogger(__name__)


def write(run: Run, came: int, short_by_page: tuple[int, int], kept: Mapping[str, Any]) -> None:
    """Within the transaction that records the last page: write what there is to say of the list.

    Parameters:
      came(int): How many items it brought in all.
      short_by_page(tuple[int, int]): How many the last page held, and how many were asked for.
      kept(Mapping): What the pages before have left: see `discovery`.
    """
    _tell_of_a_gap(run, came, kept)
    _tell_of_others(run, kept)
    _note_a_short_end(run, *short_by_page, kept)


def _tell_of_others(run: Run, kept: Mapping[str, Any]) -> None:
    """Leave a line in the timeline where runs of other tenants write the same rows."""
    others = kept["rows_of_others"]
    if not others:
        return
    said = ", ".join(f"{count:,} by {tenant or 'runs without a tenant'}" for tenant, count in sorted(others.items()))
    detail = (
        f"rows of this list were written for others before: {said}. Each run overwrites what the other wrote: let "
        f"unique_by hold the tenant as well, as in unique_by = ('shop', 'external_id')"
    )
    log.warning("run %d: %s", run.id, detail)
    runs.note(run.id, "rows shared by tenants", who="sluice", door="discovery", detail=detail)


def _tell_of_a_gap(run: Run, came: int, kept: Mapping[str, Any]) -> None:
    """Leave a line in the timeline where the list brought another number of items than the API says it has."""
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
    """Leave a line in the timeline where the last page was shorter than asked for, and no total says that all came."""
    if kept["last_total"] is not None or not (0 < came < per_page or kept["passed_over"]):
        return
    if kept["passed_over"]:
        detail = (
            f"the API gave fewer items a page than the {per_page:,} that were asked for, and next_cursor went on by "
            f"more than came, {kept['passed_over']:,} in all: let it step by what came, as in cursor + len(data)"
        )
    else:
        detail = (
            f"the list ended at a page of {came:,} where {per_page:,} were asked for, and the API states no total: if "
            f"it gives shorter pages than it is asked for, let next_cursor end the list at an empty page"
        )
    log.info("run %d: %s", run.id, detail)
    runs.note(run.id, "short last page", who="sluice", door="discovery", detail=detail)
