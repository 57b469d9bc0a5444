"""Parses the headers of a response that ask to wait or state a quota. Malformed headers are ignored."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from workers.limiter.header_values import LONGEST_SECONDS, date, may_be_milliseconds, number, values, wait_seconds
from workers.text import redaction
from workers.text.plain_text import one_line

#: Servers cut fractions off: "12" can mean 12.9.
_TRUNCATION_SECONDS = 1.0

# A value beyond these is a mistake or an attack, and is ignored.
_LONGEST_TEXT = 4_096
_MOST_QUOTAS = 16
_MOST_MEMBERS = 64
_MOST_REQUESTS = 10**9

#: Headers that ask to wait, and their unit in seconds. Bucket4j (Java) has the long name of seconds, OpenAI the first
#: one of milliseconds, Azure the last.
_RETRY_AFTER = {
    "Retry-After": 1.0,
    "X-Retry-After": 1.0,
    "X-RateLimit-Retry-After": 1.0,
    "X-Rate-Limit-Retry-After": 1.0,
    "X-Rate-Limit-Retry-After-Seconds": 1.0,
    "Retry-After-Ms": 0.001,
    "X-Retry-After-Ms": 0.001,
    "X-Ms-Retry-After-Ms": 0.001,
}

# Linear and Anthropic write "-Requests" before Limit, Remaining and Reset, OpenAI after it.
_PREFIXES = ("X-RateLimit", "X-Rate-Limit", "RateLimit", "X-RateLimit-Requests", "Anthropic-RateLimit-Requests")
_SUFFIXES = {"": None, "-Second": 1.0, "-Minute": 60.0, "-Hour": 3_600.0, "-Day": 86_400.0, "-Requests": None}
#: Other names of Reset, as Discord has, and their unit in seconds.
_RESETS = {"Reset-After": 1.0, "Reset-After-Ms": 0.001, "Reset-Ms": 0.001}


class _Three(NamedTuple):
    """Three headers that belong together, in one spelling: their names, their window, other names of the reset."""

    names: tuple[str, str, str]
    seconds: float | None
    resets: dict[str, float]
    keys: frozenset[str]


def _spelled(prefix: str, suffix: str, seconds: float | None) -> _Three:
    names = (f"{prefix}-Remaining{suffix}", f"{prefix}-Limit{suffix}", f"{prefix}-Reset{suffix}")
    resets = {f"{prefix}-{part}{suffix}".lower(): unit for part, unit in _RESETS.items()}
    return _Three(names, seconds, resets, frozenset([*(name.lower() for name in names), *resets]))


_THREES = [_spelled(prefix, suffix, seconds) for prefix in _PREFIXES for suffix, seconds in _SUFFIXES.items()]
#: Remaining, limit, window in ms, reset in ms: the names of BigCommerce, and of HubSpot, which has no reset.
_IN_MILLISECONDS = (
    (
        "X-Rate-Limit-Requests-Left",
        "X-Rate-Limit-Requests-Quota",
        "X-Rate-Limit-Time-Window-Ms",
        "X-Rate-Limit-Time-Reset-Ms",
    ),
    (
        "X-HubSpot-RateLimit-Remaining",
        "X-HubSpot-RateLimit-Max",
        "X-HubSpot-RateLimit-Interval-Milliseconds",
        "",
    ),
)
_SHOPIFY = "X-Shopify-Shop-Api-Call-Limit"

# RFC 9651: the separators of a value, its strings, its tokens.
_MARK = re.compile(r'\\.|[",;]', re.DOTALL)
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
# Reddit writes its whole numbers as "595.0".
_INTEGER = re.compile(r"([0-9]{1,15})(\.0*)?")
_AGE = re.compile(r"[0-9]+(\.[0-9]*)?")


@dataclass(frozen=True)
class Quota:
    """What one response says about one window of the API's limits. A part that it does not say is None.

    Parameters:
      limit(int | None): Requests per window, 0 to 10^9. A 0 is passed on.
      seconds(float | None): The window's length where a header names it, up to 31 days.
      remaining(int | None): How many more requests the server allows now; never more than the limit.
      reset_seconds(float | None): From the response's arrival, 0 to 31 days.
      header(str): The header's name, for people: "X-RateLimit-Remaining".
      in_doubt(bool): Whether `reset_seconds` was read from a number that can also be milliseconds: "5000".

    *Warning:* `reset_seconds` is not always the time until the quota returns. In draft -11 it is the time that the
    remaining requests must last, and servers disagree about it in the older forms. Use it for a wait only where a 429
    has no Retry-After.
    """

    limit: int | None
    seconds: float | None
    remaining: int | None
    reset_seconds: float | None
    header: str
    in_doubt: bool = False


def retry_after_seconds(headers: Mapping[str, str], received_at: datetime) -> float | None:
    """Return how long Retry-After asks to wait, plus a second for truncation; None where no value can be read.

    It reads both forms of RFC 9110 10.2.3: seconds (also with decimals), and an HTTP date, which is compared with the
    response's own Date header where there is one, because two machines have two clocks. It also reads what APIs send
    instead: a unit after the number, epoch seconds or milliseconds, ISO 8601, names that end in `-Ms`. A number of
    seconds beyond 31 days is read as milliseconds. Of several values the longest one counts.

    Parameters:
      headers(Mapping[str, str]): The response's headers, looked up without regard to case.
      received_at(datetime): When the response arrived, UTC-aware.
    """
    now = date(headers.get("Date", "")) or received_at
    waits = [
        wait_seconds(text, now, unit) for name, unit in _RETRY_AFTER.items() for text in values(headers.get(name, ""))
    ]
    known = [seconds for seconds in waits if seconds is not None]
    return max(known) + _TRUNCATION_SECONDS if known else None


def retry_after_text(headers: Mapping[str, str]) -> str:
    """Return the headers that ask to wait, for people: "Retry-After 8"; empty where there is none.

    They are as sent, without secrets, and on one line: Redis and the database store this text as a reason.
    """
    sent = {name: headers.get(name, "").strip() for name in _RETRY_AFTER}
    return ", ".join(f"{name} {one_line(redaction.excerpt(text, 40))}" for name, text in sent.items() if text)


def quotas(headers: Mapping[str, str], received_at: datetime) -> tuple[Quota, ...]:
    """Return what a response says about the API's limits, each window once; nothing where a cache sent it.

    It reads `X-RateLimit-*`, `X-Rate-Limit-*` and `RateLimit-*` (Limit, Remaining, Reset or Reset-After; also followed
    by -Second, -Minute, -Hour, -Day or -Requests), `RateLimit` and `RateLimit-Policy` of the IETF's drafts, and the
    headers of Shopify, BigCommerce, HubSpot, Linear and Anthropic. Where several describe the same limit and window,
    the least remaining counts; between equals, the longest reset.

    Parameters:
      headers(Mapping[str, str]): The response's headers, looked up without regard to case.
      received_at(datetime): When the response arrived, UTC-aware.

    Returns:
      At most 16 quotas. A limit that is stated both with its window and without (Kong does this) is two of them.

    *Warning:* the remaining number is no promise: other requests are on their way, and servers count in several ways.
    A reset in milliseconds ("600000") looks like seconds: such a quota is `in_doubt`. "5,000" is not a number, "5000"
    is.

    Source: draft-ietf-httpapi-ratelimit-headers -06, -07 and -11, RFC 9651, and the documents of GitHub, Kong, Shopify.
    """
    fields = {name.lower(): text.strip(" \t") for name, text in headers.items() if len(text) <= _LONGEST_TEXT}
    if _cached(fields.get("age", "")):
        return ()
    now = date(fields.get("date", "")) or received_at
    named = [
        *_three_headers(fields, now),
        *_one_header(fields, now),
        *_named_policies(fields, now),
        *_in_milliseconds(fields, now),
        *_shopify(fields),
    ]
    return tuple(_least_of_each(named))[:_MOST_QUOTAS]


def _cached(age: str) -> bool:
    """Whether the Age header is above zero: a cache stored the response earlier, and its numbers are out of date."""
    return _AGE.fullmatch(age) is not None and age.strip("0.") != ""


def _least_of_each(named: Iterable[Quota]) -> Iterator[Quota]:
    least: dict[tuple[int | None, float | None], Quota] = {}
    for quota in named:
        if quota.limit is None and quota.remaining is None and quota.reset_seconds is None:
            continue
        window = (quota.limit, quota.seconds)
        least[window] = min(least.get(window, quota), quota, key=_strictness)
    yield from least.values()


def _strictness(quota: Quota) -> tuple[float, float]:
    remaining = math.inf if quota.remaining is None else quota.remaining
    return remaining, 1.0 if quota.reset_seconds is None else -quota.reset_seconds


# --- the forms --------------------------------------------------------------------------------------------------------


def _three_headers(fields: Mapping[str, str], now: datetime) -> Iterator[Quota]:
    """`X-RateLimit-Limit: 100`, `-Remaining: 50`, `-Reset: 5`, in every spelling; drafts up to -06 among them."""
    for three in _THREES:
        if not three.keys.isdisjoint(fields):
            yield from _three(three, fields, now)


def _without_repeats(text: str) -> str:
    """Return the value of a header that was sent several times with the same value."""
    first, _, rest = text.partition(", ")
    return first if rest and all(part == first for part in rest.split(", ")) else text


def _reset_after(three: _Three, fields: Mapping[str, str], now: datetime) -> float | None:
    """Read the headers that state a length of time. They need no clock, and come before the header Reset."""
    for name, unit_seconds in three.resets.items():
        if name in fields and (seconds := _reset_seconds(fields[name], now, unit_seconds)) is not None:
            return seconds
    return None


def _three(three: _Three, fields: Mapping[str, str], now: datetime) -> Iterator[Quota]:
    names, seconds = three.names, three.seconds
    texts = [_without_repeats(fields.get(name.lower(), "")) for name in names]
    reset_after = _reset_after(three, fields, now)
    limit, windows = _limit_and_windows(texts[1])
    remaining = _at_most(_whole(texts[0]), limit)
    reset_seconds = _reset_seconds(texts[2], now) if reset_after is None else reset_after
    in_doubt = reset_after is None and may_be_milliseconds(texts[2])
    header = next((name for name, part in zip(names, (remaining, limit), strict=False) if part is not None), names[2])
    # A policy of the drafts describes the windows of the drafts' headers. An X- header can come from another machine.
    known = windows if names[0].startswith("X-") else windows + _windows(_items(fields.get("ratelimit-policy", "")))
    yield Quota(limit, seconds or _window_of(limit, known), remaining, reset_seconds, header, in_doubt)
    yield from (Quota(most, length, None, None, names[1]) for most, length in windows)


def _limit_and_windows(text: str) -> tuple[int | None, list[tuple[int, float]]]:
    """Read `100, 100;w=10, 1000;w=60`: the limit that is nearest, then every window's.

    "5,000" and "60, 5000" (the headers of two gateways in one) are ambiguous, and give no limit.
    """
    items = _items(text)
    windows = _windows(items)
    alone = all("w" in item.parameters or "window" in item.parameters for item in items[1:])
    return (_whole(items[0].value) if alone else None), windows


def _one_header(fields: Mapping[str, str], now: datetime) -> Iterator[Quota]:
    """Draft -07: `RateLimit: limit=100, remaining=50, reset=5` and `RateLimit-Policy: 100;w=10, 1000;w=60`."""
    windows = _windows(_items(fields.get("ratelimit-policy", "")))
    parts = dict(item.value.partition("=")[::2] for item in _items(fields.get("ratelimit", "")))
    limit = _whole(parts.get("limit", ""))
    remaining = _at_most(_whole(parts.get("remaining", "")), limit)
    reset_seconds = _reset_seconds(parts.get("reset", ""), now)
    yield Quota(limit, _window_of(limit, windows), remaining, reset_seconds, "RateLimit")
    yield from (Quota(most, length, None, None, "RateLimit-Policy") for most, length in windows)


def _named_policies(fields: Mapping[str, str], now: datetime) -> Iterator[Quota]:
    """Draft -11: `RateLimit: "default";r=50;t=30` and `RateLimit-Policy: "default";q=100;w=60`, joined by the name."""
    policies = [(name, _whole(p.get("q", "")), p) for name, p in _named(fields.get("ratelimit-policy", ""))]
    not_requests = {name for name, _, policy in policies if not _counts_requests(policy)}
    states = {name: state for name, state in _states(fields, now).items() if name not in not_requests}
    for name, limit, policy in policies:
        if limit is not None and name not in not_requests:
            yield _joined(limit, _length(policy.get("w", "")), states.get(name))
    limited = {name for name, limit, _ in policies if limit is not None}
    yield from (state for name, state in states.items() if name not in limited)


def _joined(limit: int, seconds: float | None, state: Quota | None) -> Quota:
    if state is None:
        return Quota(limit, seconds, None, None, "RateLimit-Policy")
    return Quota(limit, seconds, _at_most(state.remaining, limit), state.reset_seconds, state.header)


def _states(fields: Mapping[str, str], now: datetime) -> dict[str, Quota]:
    """Return what remains by policy name; the least, where several partitions of the quota have the same name.

    The next draft may use `a` for `r` and `w` for `t`.
    """
    states: dict[str, Quota] = {}
    for name, state in _named(fields.get("ratelimit", "")):
        remaining = _whole(state.get("r", state.get("a", "")))
        reset_seconds = _reset_seconds(state.get("t", state.get("w", "")), now)
        quota = Quota(None, None, remaining, reset_seconds, "RateLimit")
        if remaining is not None:
            states[name] = min(states.get(name, quota), quota, key=_strictness)
    return states


def _counts_requests(policy: Mapping[str, str]) -> bool:
    return _name(policy.get("qu", "requests")) == "requests"


def _in_milliseconds(fields: Mapping[str, str], now: datetime) -> Iterator[Quota]:
    for names in _IN_MILLISECONDS:
        if names[0].lower() not in fields:
            continue
        left, most, window, reset = (fields.get(name.lower(), "") for name in names)
        limit = _whole(most)
        yield Quota(
            limit, _length(window, 0.001), _at_most(_whole(left), limit), _reset_seconds(reset, now, 0.001), names[0]
        )


def _shopify(fields: Mapping[str, str]) -> Iterator[Quota]:
    """`32/40`: used, and the limit. Where more than the limit is used, nothing remains."""
    used, _, most = fields.get(_SHOPIFY.lower(), "").partition("/")
    limit, spent = _whole(most), _whole(used)
    if limit is not None and spent is not None:
        yield Quota(limit, None, max(0, limit - spent), None, _SHOPIFY)


# --- structured fields ------------------------------------------------------------------------------------------------


class _Item(NamedTuple):
    """`value;key=text;...`, split but not parsed: a malformed part does not spoil the others."""

    value: str
    parameters: dict[str, str]


def _items(text: str) -> list[_Item]:
    """Split a List into its members: at least one, which can be empty, and at most 64."""
    return [_item(member) for member in _split(text, ",")[:_MOST_MEMBERS]]


def _item(text: str) -> _Item:
    value, *parameters = _split(text, ";")
    return _Item(value, dict(parameter.partition("=")[::2] for parameter in parameters))


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator outside of quoted strings. A backslash escapes the next character."""
    parts, start, quoted = [], 0, False
    for mark in _MARK.finditer(text):
        if mark[0] == '"':
            quoted = not quoted
        elif mark[0] == separator and not quoted:
            parts.append(text[start : mark.start()].strip(" \t"))
            start = mark.end()
    return [*parts, text[start:].strip(" \t")]


def _named(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for value, parameters in _items(text):
        name = _name(value)
        if name is not None:
            yield name, parameters


def _name(text: str) -> str | None:
    """Read a string or a token, because some servers do not quote names."""
    if _TOKEN.fullmatch(text):
        return text
    string = _STRING.fullmatch(text)
    return re.sub(r"\\(.)", r"\1", string[1]) if string else None


def _windows(items: Iterable[_Item]) -> list[tuple[int, float]]:
    """Read `100;w=10` as (100, 10.0); skip items without a limit or a window. Some APIs write `window`."""
    read = [(_whole(value), _length(p.get("w", p.get("window", "")))) for value, p in items]
    return [(limit, seconds) for limit, seconds in read if limit is not None and seconds is not None]


def _window_of(limit: int | None, windows: Iterable[tuple[int, float]]) -> float | None:
    """Return the window length of this limit; None where two windows have it."""
    lengths = {seconds for most, seconds in windows if most == limit}
    return lengths.pop() if len(lengths) == 1 else None


# --- numbers ----------------------------------------------------------------------------------------------------------


def _whole(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    value = int(match[1]) if match else -1
    return value if 0 <= value <= _MOST_REQUESTS else None


def _at_most(remaining: int | None, limit: int | None) -> int | None:
    return None if remaining is not None and limit is not None and remaining > limit else remaining


def _length(text: str, unit_seconds: float = 1.0) -> float | None:
    value = number(text)
    seconds = 0.0 if value is None else value * unit_seconds
    return seconds if 0 < seconds <= LONGEST_SECONDS else None


def _reset_seconds(text: str, now: datetime, unit_seconds: float = 1.0) -> float | None:
    """Read an instant (epoch seconds, epoch milliseconds, a date) or a length of time, as seconds from `now`."""
    if text.startswith("-") and number(text[1:]) is not None:
        return 0.0
    seconds = wait_seconds(text, now, unit_seconds)
    return seconds if seconds is not None and seconds <= LONGEST_SECONDS else None
