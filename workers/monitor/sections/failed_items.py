"""The failed items of a run, grouped by class and reason; each group has its meaning and a button that retries it."""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial

import streamlit as st

from workers.failures import FailureClass
from workers.monitor.access import current_user, middleware
from workers.monitor.actions import run_buttons, run_questions
from workers.monitor.html.button import button
from workers.monitor.html.formatting import count, moment, plural
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.section import table
from workers.monitor.readings import failed_csv
from workers.monitor.readings.cache import cached
from workers.monitor.readings.database_reading import read_database
from workers.records.tables import Run, RunStatus
from workers.reports.failure_groups import FailedItem, FailureGroup, failure_groups, first_failed, retriable_counts

#: How many groups are shown with a button, how many in all, and how many items of each.
_WITH_BUTTON, _MOST, _ITEMS = 10, 50, 10
#: Counting this number of failed items takes about 10 ms: the more there are, the less often they are counted.
_QUICK_COUNT = 10_000
_FRESH_SECONDS = 4.0

#: The meaning of each class, and the repair.
MEANS: dict[FailureClass, str] = {
    FailureClass.RATE_LIMITED: "The API's rate limit refused the request. Retry it.",
    FailureClass.TRANSIENT: "A timeout, a broken connection or a server error at every attempt. "
    "Retry when the API is healthy again.",
    FailureClass.AUTH: "The API rejected the credentials. Correct them, then retry.",
    FailureClass.NOT_FOUND: "The API has no such item. A retry helps only if it is back.",
    FailureClass.BAD_DATA: "The row could not be saved. Correct the model or the data, then retry.",
    FailureClass.CONTRACT: "The answer of the API is not what the source expects. Correct the source, then retry.",
    FailureClass.BUG: "The code of the source raised an error: the workers' log has the traceback. Fix it, then retry.",
}

_HEAD = """
<div class="sl-failures-head" id="failures"><h3 class="sl-title">Failed items
<span>{items} in {groups}</span></h3>{file}</div>{closed}
"""
_FILE = '<a class="sl-file" href="{address}" download="{name}">Download all as CSV</a>'
_CLOSED = """
<p class="sl-dim">They cannot be retried, because the run was cancelled. Start a new run.</p>
"""
_SECTION = '<section class="sl-card sl-failures">{head}{rows}{rest}</section>'
_ROW = '<div class="sl-failure-row">{group}{act}</div>'
_REFUSED = '<p class="sl-dim">invalid list entries: the next run reads them again</p>'
_GROUP = """
<section class="sl-failure" id="failed-{kind}-{fingerprint}">
  <p class="sl-failure-what"><i class="sl-icon sl-i-cross"></i><b>{number}</b>
    <span class="sl-failure-reason">{reason}</span></p>
  <p class="sl-dim"><b>{kind}</b>: {means}</p>
  <details id="first-{kind}-{fingerprint}"><summary>example: item {external_id}{more}</summary>{items}</details>
</section>
"""
_ITEM = '<tr><td>{id}</td><td>{at}</td><td>{attempts}</td><td class="sl-text">{reason}</td></tr>'
_REST = '<details id="more-failures"><summary>{title}</summary>{groups}</details>'


@dataclass(frozen=True)
class Failures:
    """The groups of a run's failed items, largest first; for the groups with a button, some items and the HTML.

    Attributes:
      retriable: How many items can be retried, by class and fingerprint: invalid list entries have no row to retry.
    """

    groups: tuple[FailureGroup, ...]
    first: tuple[tuple[FailedItem, ...], ...]
    drawn: tuple[Html, ...]
    retriable: dict[tuple[str, str], int]


def failures_section(run: Run, zone: tzinfo, now: datetime) -> Html:
    """Return the section; nothing where no item failed, or the items were removed."""
    failures = _failures(run, zone, now)
    if not failures.groups:
        return fill("")
    may_retry = _may_retry(run)
    shown = zip(failures.groups, failures.first, failures.drawn, strict=False)
    rows = join(_row(group, _count_of(failures, group), html, may_retry=may_retry) for group, _, html in shown)
    rest = failures.groups[_WITH_BUTTON:]
    return fill(_SECTION, head=_head(run, failures), rows=rows, rest=_folded(rest) if rest else "")


def press(run: Run, name: str, zone: tzinfo, now: datetime) -> bool:
    """Open the dialog of the group with that button. Returns whether there is one."""
    failures = _failures(run, zone, now)
    for group, _ in zip(failures.groups, failures.first, strict=False) if _may_retry(run) else ():
        if name == _press(group) and _is_known(group) and _count_of(failures, group):
            run_buttons.open_for(run.id, partial(run_questions.retry_failed, group=group))
            return True
    return False


def retriable(run: Run, zone: tzinfo, now: datetime) -> int:
    """Return how many of its failed items can be retried: the number on the button and in its dialog."""
    return sum(_failures(run, zone, now).retriable.values())


def draw_file(run: Run) -> None:
    """Draw a download button for all failed items, where the page has no route for the file (`streamlit run`)."""
    if middleware.is_active() or not _has_any(run):
        return
    st.download_button(
        "Download all as CSV",
        partial(_file_content, run.id),
        failed_csv.file_name(run.id),
        "text/csv",
        key=f"csv {run.id}",
        on_click="ignore",
        icon=":material/download:",
    )


def _has_any(run: Run) -> bool:
    return bool(run.failed_count) and not run.items_removed_at


def _may_retry(run: Run) -> bool:
    return current_user.may_act() and run.status != RunStatus.CANCELLED


def _failures(run: Run, zone: tzinfo, now: datetime) -> Failures:
    if not _has_any(run):
        return Failures((), (), (), {})
    age = max(_FRESH_SECONDS, run.failed_count / _QUICK_COUNT)
    key = ("failures", run.id, run.status, zone)
    return cached(key, age, partial(read_database, partial(_read, run.id, zone, now)))


def _read(run_id: int, zone: tzinfo, now: datetime) -> Failures:
    groups = tuple(failure_groups(run_id, _MOST))
    first = tuple(tuple(first_failed(run_id, group, _ITEMS)) for group in groups[:_WITH_BUTTON])
    drawn = tuple(_group_html(group, items, zone, now) for group, items in zip(groups, first, strict=False))
    return Failures(groups, first, drawn, retriable_counts(run_id))


def _head(run: Run, failures: Failures) -> Html:
    number = len(failures.groups)
    groups = plural(number, "group") if number < _MOST else f"{_MOST} groups or more"
    served = middleware.is_active()  # then there is a route to the file
    name = failed_csv.file_name(run.id)
    file = fill(_FILE, address=f"runs/{run.id}/failed.csv", name=name) if served else fill("")
    closed = fill(_CLOSED) if run.status == RunStatus.CANCELLED else fill("")
    return fill(_HEAD, items=plural(run.failed_count, "item"), groups=groups, file=file, closed=closed)


def _file_content(run_id: int) -> str:
    return "".join(failed_csv.csv_parts(run_id))


def _row(group: FailureGroup, retriable: int, html: Html, *, may_retry: bool) -> Html:
    """Return a group, and beside it its button.

    Parameters:
      retriable(int): How many of its items can be retried.
    """
    if not may_retry or not _is_known(group):
        return fill(_ROW, group=html, act="")
    if not retriable:
        return fill(_ROW, group=html, act=fill(_REFUSED))
    label = "Retry this item" if group.count == 1 else f"Retry these {count(retriable)}"
    if retriable < group.count:
        label = f"Retry {count(retriable)} of these {count(group.count)}"
    return fill(_ROW, group=html, act=button(label, _press(group), "replay"))


def _is_known(group: FailureGroup) -> bool:
    """Whether it has a class and a fingerprint: the failures of old versions have none."""
    return bool(group.failure_class and group.fingerprint)


def _count_of(failures: Failures, group: FailureGroup) -> int:
    return failures.retriable.get((group.failure_class, group.fingerprint), 0)


def _press(group: FailureGroup) -> str:
    return f"retry {group.failure_class} {group.fingerprint}"


def _group_html(group: FailureGroup, items: tuple[FailedItem, ...], zone: tzinfo, now: datetime) -> Html:
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
    """Return the meaning of a class and the repair; empty for an unknown class."""
    return MEANS[FailureClass(failure_class)] if failure_class in list(FailureClass) else ""


def _item(item: FailedItem, zone: tzinfo, now: datetime) -> Html:
    at = moment(item.failed_at, zone, now)
    return fill(_ITEM, id=item.external_id, at=at, attempts=item.attempts, reason=item.reason)


def _folded(groups: tuple[FailureGroup, ...]) -> Html:
    heads = ("Items", "Class", "Example", "Reason")
    row = '<tr><td>{number}</td><td>{kind}</td><td>{id}</td><td class="sl-text">{reason}</td></tr>'
    rows = (fill(row, number=count(g.count), kind=g.failure_class, id=g.external_id, reason=g.reason) for g in groups)
    return fill(_REST, title=f"{plural(len(groups), 'smaller group')}", groups=table(heads, rows))
