"""The filters of the runs table, kept in the page's address, so that a link shows the same view."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.monitor.html import links
from workers.monitor.html.formatting import count
from workers.monitor.html.markup import Html, fill, join
from workers.reports.labels import LABELS
from workers.reports.runs_list import KINDS, MOST, WITH_FAILURES, Wanted

#: What the filter by status offers.
STATUSES = (*LABELS, WITH_FAILURES)
_LONGEST = 100
#: With more tenants than this, the filter is a text field in place of a list.
_MANY = 100

_BAR = """
<nav class="sl-filters" aria-label="Filters"><h2 class="sl-title">Runs <span role="status">{counted}</span></h2>
{picks}{name}<a class="sl-chip" href="{href}" data-page{current}><i class="sl-icon sl-i-clock"></i>Last 24 hours</a>
{reset}</nav>
"""
_PICK = """
<details class="sl-pick" name="sl-pick" id="pick-{what}-{chosen}"{current}><summary>{title}<b>{shown}</b></summary>
<ul>{options}</ul></details>
"""
_OPTION = '<li><a href="{href}" data-page{current}>{shown}</a></li>'
_NAME = """
<form class="sl-pick-name" method="get" action="./"{current}>{kept}<input id="tenant-name" name="tenant"
 value="{tenant}" maxlength="100" placeholder="Tenant" aria-label="Tenant" autocomplete="off"></form>
"""
_KEPT = '<input type="hidden" name="{name}" value="{value}">'
_RESET = '<a class="sl-reset" href="./" data-page><i class="sl-icon sl-i-cross"></i>Reset</a>'
_NONE = """
<section class="sl-card sl-none"><h3>No run matches</h3><p class="sl-dim">{which}</p>
<p><a class="sl-chip" href="./" data-page>Show all runs</a></p></section>
"""
_UNKNOWN = """
<p class="sl-line sl-warn" role="status"><i class="sl-icon sl-i-alert"></i><span>Unknown {name} {value} in the
address: this filter is ignored.</span></p>
"""


@dataclass(frozen=True)
class Pick:
    """One thing to filter by.

    Attributes:
      title: Its label.
      what: Its name in the address.
      field: Its name in `Wanted`.
      options: The values to choose from.
    """

    title: str
    what: str
    field: str
    options: Sequence[str]


def wanted(asked: Mapping[str, str]) -> Wanted:
    """Return the filters of an address. It can hold any text: values that cannot be valid are ignored.

    Parameters:
      asked(Mapping[str, str]): The query parameters.
    """
    return Wanted(
        kind=_one_of(KINDS, asked.get("kind", "")),
        source=_text(asked.get("source", "")),
        tenant=_text(asked.get("tenant", "")),
        label=_one_of(STATUSES, asked.get("status", "")),
        lately=asked.get("hours") == "24",
        before=_number(asked.get("before", "")),
    )


def unknown_filters(asked: Mapping[str, str]) -> Html:
    """Return a line for each status or kind of the address that does not exist; empty where there is none."""
    known = {"status": STATUSES, "kind": KINDS}
    unknown = [name for name, values in known.items() if asked.get(name) and asked[name] not in values]
    return join(fill(_UNKNOWN, name=name, value=repr(asked[name][:_LONGEST])) for name in unknown)


def address(chosen: Wanted) -> str:
    """Return the address that shows these runs."""
    return links.to(links.RUNS, **_query(chosen))


def bar(chosen: Wanted, counted: int, sources: Iterable[str], tenants: Sequence[str]) -> Html:
    """Return the filters, as links.

    Parameters:
      chosen(Wanted): The current filters.
      counted(int): The number of matching runs, from `runs_list.count`.
      sources(Iterable[str]), tenants(Sequence[str]): The values to choose from.
    """
    first = replace(chosen, before=0)
    many = len(tenants) > _MANY
    picks = [
        Pick("Status", "status", "label", STATUSES),
        Pick("Source", "source", "source", sorted({*sources} | {chosen.source} - {""})),
        Pick("Tenant", "tenant", "tenant", sorted({*tenants} | {chosen.tenant} - {""}) if not many else ()),
        Pick("Kind", "kind", "kind", KINDS),
    ]
    return fill(
        _BAR,
        counted=_counted(chosen, counted),
        picks=join(_pick(pick, first) for pick in picks if pick.options),
        name=_name(first) if many else fill(""),
        href=address(replace(first, lately=not first.lately)),
        current=_current(first.lately),
        reset=fill(_RESET) if chosen.narrows else fill(""),
    )


def no_match(chosen: Wanted) -> Html:
    """Return what is shown in place of the table where no run matches."""
    parts = [f"{name} {value}" for name, value in _query(chosen).items() if name not in ("hours", "before")]
    parts += ["in the last 24 hours"] if chosen.lately else []
    parts += [f"older than run {chosen.before}"] if chosen.before else []
    return fill(_NONE, which=" · ".join(parts))


def _query(chosen: Wanted) -> dict[str, str]:
    query = {"status": chosen.label, "source": chosen.source, "tenant": chosen.tenant, "kind": chosen.kind}
    query |= {"hours": "24" if chosen.lately else "", "before": str(chosen.before or "")}
    return {name: value for name, value in query.items() if value}


def _counted(chosen: Wanted, counted: int) -> str:
    number = f"more than {count(MOST)}" if counted > MOST else count(counted)
    return f"{number} {'run' if counted == 1 else 'runs'}{' match' if chosen.narrows else ''}"


def _pick(pick: Pick, chosen: Wanted) -> Html:
    """Return one menu. Its id contains the chosen value, so that a choice closes it."""
    now = getattr(chosen, pick.field)
    return fill(
        _PICK,
        what=pick.what,
        chosen=now,
        current=_current(bool(now)),
        title=pick.title,
        shown=now or "all",
        options=join(_option(pick, chosen, value) for value in ("", *pick.options)),
    )


def _option(pick: Pick, chosen: Wanted, value: str) -> Html:
    change: Any = {pick.field: value}
    href = address(replace(chosen, **change))
    return fill(_OPTION, href=href, current=_current(value == getattr(chosen, pick.field)), shown=value or "all")


def _name(chosen: Wanted) -> Html:
    """Return a text field for the tenant. It reloads the page."""
    kept = _query(replace(chosen, tenant=""))
    hidden = join(fill(_KEPT, name=name, value=value) for name, value in kept.items())
    return fill(_NAME, kept=hidden, tenant=chosen.tenant, current=_current(bool(chosen.tenant)))


def _current(is_so: bool) -> Html:
    return fill(' aria-current="true"' if is_so else "")


# --- values of an address


def _one_of(known: Sequence[str], value: str) -> str:
    return value if value in known else ""


def _text(value: str) -> str:
    return value if len(value) <= _LONGEST and value.isprintable() else ""


def _number(value: str) -> int:
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else 0
