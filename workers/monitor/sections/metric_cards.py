"""The metric cards of the System page: open work, Redis and the database."""

from workers.monitor.html.formatting import count, plural
from workers.monitor.html.icon_label import icon_label
from workers.monitor.html.markup import Html, fill, join
from workers.reports.metrics import MOST_DUE, DatabaseMetrics, RedisMetrics, WorkMetrics
from workers.version import VERSION

_NEARLY_FULL = 0.9
_MIGRATE = "one is missing: run `python -m workers migrate`"
_FACTS = '<div class="sl-card sl-facts"><h3 class="sl-title">{title}</h3><dl>{facts}</dl></div>'


def figure_cards(work: WorkMetrics | None, redis: RedisMetrics | None, database: DatabaseMetrics | None) -> Html:
    """Return the cards; None where it does not answer."""
    return fill(
        '<div class="sl-fact-cards">{cards}</div>', cards=join([_work(work), _redis(redis), _database(database)])
    )


def _work(figures: WorkMetrics | None) -> Html:
    if figures is None:
        return _unavailable("Work", "the database does not answer")
    overdue = icon_label("warn", "alert", f"{count(figures.overdue_lanes)} overdue: the scheduler re-sends them")
    lanes = fill("{open}", open=count(figures.lanes))
    messages = "unknown" if figures.messages is None else plural(figures.messages, "message")
    return _facts(
        "Work",
        ("Active runs", count(figures.active_runs)),
        ("Lanes", join([lanes, overdue], " ") if figures.overdue_lanes else lanes),
        ("Items due now", _at_least(figures.due_items)),
        ("Items in progress", _at_least(figures.claimed_items)),
        ("Queue", messages),
    )


def _redis(figures: RedisMetrics | None) -> Html:
    if figures is None:
        return _unavailable("Redis", "does not answer, or does not permit INFO")
    return _facts(
        "Redis",
        ("Version", figures.title),
        ("Response time", _milliseconds(figures.latency_seconds)),
        ("Memory", _memory(figures)),
        ("Eviction policy", figures.policy or "unknown"),
        ("Persistence", figures.persistence),
    )


def _memory(figures: RedisMetrics) -> Html | str:
    if figures.limit_bytes is None:
        return f"{_size(figures.used_bytes)}, no limit"
    usage = f"{_size(figures.used_bytes)} of {_size(figures.limit_bytes)}"
    full = figures.used_bytes > _NEARLY_FULL * figures.limit_bytes
    return icon_label("warn", "alert", f"{usage}: nearly full, raise `maxmemory`") if full else usage


def _database(figures: DatabaseMetrics | None) -> Html:
    if figures is None:
        return _unavailable("Database", "does not answer")
    return _facts(
        "Database",
        ("Version", figures.title),
        ("Response time", _milliseconds(figures.latency_seconds)),
        ("Size", _size(figures.size_bytes)),
        ("Migrations", figures.migration or icon_label("warn", "alert", _MIGRATE)),
        ("Sluice", VERSION),
    )


def _facts(title: str, *facts: tuple[str, Html | str]) -> Html:
    lines = join(fill("<div><dt>{name}</dt><dd>{value}</dd></div>", name=name, value=value) for name, value in facts)
    return fill(_FACTS, title=title, facts=lines)


def _unavailable(title: str, why: str) -> Html:
    return fill(_FACTS, title=title, facts=fill("<div>{why}</div>", why=icon_label("bad", "cross", why)))


def _at_least(number: int) -> str:
    return f"{count(number)} or more" if number >= MOST_DUE else count(number)


def _milliseconds(seconds: float) -> str:
    return "less than 0.1 ms" if seconds < 0.0001 else f"{seconds * 1000:.1f} ms"


def _size(number: int) -> str:
    """Return a size with its unit: 840 kB, 12.3 MB, 4.1 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"
