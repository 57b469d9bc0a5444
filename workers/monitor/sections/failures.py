"""What failed of a run: the items that failed alike together, what that means, and a button that retries just those."""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial

import streamlit as st

from workers.failures import FailureClass
from workers.monitor.access import viewer, wall
from workers.monitor.actions import questions, run_actions
from workers.monitor.html.button import button
from workers.monitor.html.formatting import count, moment, so_many
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.section import table
from workers.monitor.readings import failed_csv
from workers.monitor.readings.cache import shared
from workers.monitor.readings.database_reading import reading
from workers.records.tables import Run, RunStatus
from workers.reports.failure_groups import FailedItem, FailureGroup, failure_groups, first_failed, retriable_counts

#: So many groups are shown with a button each, so many in all, and so many items of each.
_WITH_BUTTON, _MOST, _ITEMS = 10, 50, 10
#: Counting so many failed items takes about a hundredth of a second: they are counted so much less often.
_QUICK_COUNT = 10_000
_FRESH_SECONDS = 4.0

#: What each class means, and what mends it.
MEANS: dict[FailureClass, str] = {
    FailureClass.RATE_LIMITED: "The API refused it for its limit. Retry it.",
    FailureClass.TRANSIENT: "A timeout, a broken connection or an error of the API's own, at every attempt. "
    "Retry when the API is well again.",
    FailureClass.AUTH: "The credentials were refused. Mend them, then retry.",
    FailureClass.NOT_FOUND: "The API says it has no such item. A retry helps only where it is back.",
    FailureClass.BAD_DATA: "The API answered, and the row could not take it. Mend the model or the data, then retry.",
    FailureClass.CONTRACT: "The API is not what the source expects of it. Mend the source, then retry.",
    FailureClass.BUG: "The source's own code failed: the workers' log has the traceback. Mend it, then retry.",
}

_HEAD = """
<div class="sl-failures-head" id="failures"><h3 class="sl-title">Failed items
<span>{items}, of {kinds}</span></h3>{file}</div>{closed}
"""
_FILE = '<a class="sl-file" href="{address}" download="{name}">Download all as CSV</a>'
_CLOSED = """
<p class="sl-dim">They cannot be retried: a run that was called off is not taken up again. Start a new one.</p>
"""
_SECTION = '<section class="sl-card sl-failures">{head}{rows}{rest}</section>'
_ROW = '<div class="sl-failure-row">{group}{act}</div>'
_REFUSED = '<p class="sl-dim">refused from the list: the next run reads them anew</p>'
_GROUP = """
<section class="sl-failure" id="failed-{kind}-{fingerprint}">
  <p class="sl-failure-what"><i class="sl-icon sl-i-cross"></i><b>{number}</b>
    <span class="sl-failure-reason">{reason}</span></p>
  <p class="sl-dim"><b>{kind}</b>: {means}</p>
  <details id="first-{kind}-{fingerprint}"><summary>for example item {external_id}{more}</summary>{items}</details>
</section>
"""
_ITEM = '<tr><td>{id}</td><td>{at}</td><td>{attempts}</td><td class="sl-text">{reason}</td></tr>'
_REST = '<details id="more-failures"><summary>{title}</summary>{groups}</details>'


@dataclass(frozen=True)
class Failures:
    """The groups of a run's failed items, the largest first; the first items of those shown large, and those drawn.

    Attributes:
      retriable: How many items can be tried again, by class and fingerprint: those of the list have no row to fill.
    """

    groups: tuple[FailureGroup, ...]
    first: tuple[tuple[FailedItem, ...], ...]
    drawn: tuple[Html, ...]
    retriable: dict[tuple[str, str], int]


def failures_section(run: Run, zone: tzinfo, now: datetime) -> Html:
    """Return the section; nothing where nothing failed, or the items are gone."""
    found = _found(run, zone, now)
    if not found.groups:
        return fill("")
    may_retry = _may_retry(run)
    shown = zip(found.groups, found.first, found.drawn, strict=False)
    rows = join(_row(group, _count_of(found, group), html, may_retry=may_retry) for group, _, html in shown)
    rest = found.groups[_WITH_BUTTON:]
    return fill(_SECTION, head=_head(run, found), rows=rows, rest=_folded(rest) if rest else "")


def press(run: Run, name: str, zone: tzinfo, now: datetime) -> bool:
    """Ask about the group whose button that is. Returns whether it is one of them."""
    found = _found(run, zone, now)
    for group, _ in zip(found.groups, found.first, strict=False) if _may_retry(run) else ():
        if name == _press(group) and _is_known(group) and _count_of(found, group):
            run_actions.start(run.id, partial(questions.retry_failed, group=group))
            return True
    return False


def retriable(run: Run, zone: tzinfo, now: datetime) -> int:
    """Return how many of its failed items can be tried again: what the button and its dialog say."""
    return sum(_found(run, zone, now).retriable.values())


def draw_file(run: Run) -> None:
    """Draw the button for the file with all of them, where nothing serves it under an address of its own."""
    if wall.stands() or not _has_any(run):
        return
    st.download_button(
        "Download all as CSV",
        partial(_whole_file, run.id),
        failed_csv.file_name(run.id),
        "text/csv",
        key=f"csv {run.id}",
        on_click="ignore",
        icon=":material/download:",
    )


def _has_any(run: Run) -> bool:
    return bool(run.failed_count) and not run.items_removed_at


def _may_retry(run: Run) -> bool:
    return viewer.may_act() and run.status != RunStatus.CANCELLED


def _found(run: Run, zone: tzinfo, now: datetime) -> Failures:
    if not _has_any(run):
        return Failures((), (), (), {})
    age = max(_FRESH_SECONDS, run.failed_count / _QUICK_COUNT)
    key = ("failures", run.id, run.status, zone)
    return shared(key, age, partial(reading, partial(_read, run.id, zone, now)))


def _read(run_id: int, zone: tzinfo, now: datetime) -> Failures:
    groups = tuple(failure_groups(run_id, _MOST))
    first = tuple(tuple(first_failed(run_id, group, _ITEMS)) for group in groups[:_WITH_BUTTON])
    drawn = tuple(_group(group, items, zone, now) for group, items in zip(groups, first, strict=False))
    return Failures(groups, first, drawn, retriable_counts(run_id))


def _head(run: Run, found: Failures) -> Html:
    number = len(found.groups)
    kinds = "one kind" if number == 1 else f"{number} kinds" if number < _MOST else f"{_MOST} kinds and more"
    served = wall.stands()  # and with it the route to the file
    name = failed_csv.file_name(run.id)
    file = fill(_FILE, address=f"runs/{run.id}/failed.csv", name=name) if served else fill("")
    closed = fill(_CLOSED) if run.status == RunStatus.CANCELLED else fill("")
    return fill(_HEAD, items=so_many(run.failed_count, "item"), kinds=kinds, file=file, closed=closed)


def _whole_file(run_id: int) -> str:
    return "".join(failed_csv.csv_parts(run_id))


def _row(group: FailureGroup, retriable: int, html: Html, *, may_retry: bool) -> Html:
    """Return a group, and beside it what may be done with it.

    Parameters:
      retriable(int): How many of its items can be tried again.
    """
    if not may_retry or not _is_known(group):
        return fill(_ROW, group=html, act="")
    if not retriable:
        return fill(_ROW, group=html, act=fill(_REFUSED))
    label = "Retry this one" if group.count == 1 else f"Retry these {count(retriable)}"
    if retriable < group.count:
        label = f"Retry {count(retriable)} of these {count(group.count)}"
    return fill(_ROW, group=html, act=button(label, _press(group), "replay"))


def _is_known(group: FailureGroup) -> bool:
    """Whether its items can be told from others: those of old runs have no class."""
    return bool(group.failure_class and group.fingerprint)


def _count_of(found: Failures, group: FailureGroup) -> int:
    return found.retriable.get((group.failure_class, group.fingerprint), 0)


def _press(group: FailureGroup) -> str:
    return f"retry {group.failure_class} {group.fingerprint}"


def _group(group: FailureGroup, items: tuple[FailedItem, ...], zone: tzinfo, now: datetime) -> Html:
    shown = len(items)
    more = "" if group.count <= 1 else f", and {'all' if shown >= group.count else 'the first'} {count(shown)}"
    heads = ("Item", "Failed", "Attempts", "Reason")
    return fill(
        _GROUP,
        number=count(group.count),
        kind=group.failure_class or "unknown",
        fingerprint=group.fingerprint,
        means=means(group.failure_class),
        reason=group.reason,
        external_id=group.external_id,
        more=more,
        items=table(heads, (_item(item, zone, now) for item in items)) if items else "",
    )


def means(failure_class: str) -> str:
    """Return what a class means and what mends it; empty for one that is none of ours."""
    return MEANS[FailureClass(failure_class)] if failure_class in list(FailureClass) else ""


def _item(item: FailedItem, zone: tzinfo, now: datetime) -> Html:
    at = moment(item.failed_at, zone, now)
    return fill(_ITEM, id=item.external_id, at=at, attempts=item.attempts, reason=item.reason)


def _folded(groups: tuple[FailureGroup, ...]) -> Html:
    heads = ("Items", "Class", "For example", "Reason")
    row = '<tr><td>{number}</td><td>{kind}</td><td>{id}</td><td class="sl-text">{reason}</td></tr>'
    rows = (fill(row, number=count(g.count), kind=g.failure_class, id=g.external_id, reason=g.reason) for g in groups)
    return fill(_REST, title=f"{so_many(len(groups), 'smaller kind')}", groups=table(heads, rows))
