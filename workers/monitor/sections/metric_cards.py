"""The cards of figures: how much there is to do, and how Redis and the database are."""

from workers.monitor.html.formatting import count, so_many
from workers.monitor.html.icon_label import mark
from workers.monitor.html.markup import Html, fill, join
from workers.reports.metrics import MOST_DUE, DatabaseMetrics, RedisMetrics, WorkMetrics
from workers.version import VERSION

_NEARLY_FULL = 0.9
_FACTS = '<div class="sl-card sl-facts"><h3 class="sl-title">{title}</h3><dl>{facts}</dl></div>'


def figure_cards(work: WorkMetrics | None, redis: RedisMetrics | None, database: DatabaseMetrics | None) -> Html:
    """Return the cards; None stands for what does not answer."""
    return fill(
        '<div class="sl-fact-cards">{cards}</div>', cards=join([_work(work), _redis(redis), _database(database)])
    )


def _work(figures: WorkMetrics | None) -> Html:
    if figures is None:
        return _silent("Work", "the database does not answer")
    overdue = mark("warn", "alert", f"{count(figures.overdue_lanes)} overdue: the scheduler wakes them")
    lanes = fill("{open}", open=count(figures.lanes))
    messages = "cannot be told" if figures.messages is None else so_many(figures.messages, "message")
    return _facts(
        "Work",
        ("Active runs", count(figures.active_runs)),
        ("Lanes", join([lanes, overdue], " ") if figures.overdue_lanes else lanes),
        ("Items due now", _at_least(figures.due_items)),
        ("Items in hand", _at_least(figures.claimed_items)),
        ("Queue", messages),
    )


def _redis(figures: RedisMetrics | None) -> Html:
    if figures is None:
        return _silent("Redis", "it does not answer, or may not tell")
    return _facts(
        "Redis",
        ("Version", figures.title),
        ("Answers in", _milliseconds(figures.latency_seconds)),
        ("Memory", _memory(figures)),
        ("When full", figures.policy or "unknown"),
        ("Kept", figures.persistence),
    )


def _memory(figures: RedisMetrics) -> Html | str:
    if figures.limit_bytes is None:
        return f"{_size(figures.used_bytes)}, no limit"
    said = f"{_size(figures.used_bytes)} of {_size(figures.limit_bytes)}"
    full = figures.used_bytes > _NEARLY_FULL * figures.limit_bytes
    return mark("warn", "alert", f"{said}: nearly full, raise its maxmemory") if full else said


def _database(figures: DatabaseMetrics | None) -> Html:
    if figures is None:
        return _silent("Database", "it does not answer")
    return _facts(
        "Database",
        ("Version", figures.title),
        ("Answers in", _milliseconds(figures.latency_seconds)),
        ("Size", _size(figures.size_bytes)),
        ("Migrations", figures.migration or mark("warn", "alert", "one is missing")),
        ("Sluice", VERSION),
    )


def _facts(title: str, *facts: tuple[str, Html | str]) -> Html:
    lines = join(fill("<div><dt>{name}</dt><dd>{value}</dd></div>", name=name, value=value) for name, value in facts)
    return fill(_FACTS, title=title, facts=lines)


def _silent(title: str, why: str) -> Html:
    return fill(_FACTS, title=title, facts=fill("<div>{why}</div>", why=mark("bad", "cross", why)))


def _at_least(number: int) -> str:
    return f"{count(number)} or more" if number >= MOST_DUE else count(number)


def _milliseconds(seconds: float) -> str:
    return "less than 0.1 ms" if seconds < 0.0001 else f"{seconds * 1000:.1f} ms"


def _size(number: int) -> str:
    """Return bytes as people say them: 840 kB, 12.3 MB, 4.1 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"
