"""Response: decides from status and headers whether the API refused, how long to wait, and which limits it names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from workers.limiter.budget import Budget
from workers.limiter.rate_limit_headers import Quota, quotas, retry_after_seconds, retry_after_text
from workers.limiter.script_messages import Statement
from workers.text.durations import duration

#: Index of a quota whose header names no window length: limiter.lua looks for the window that has its limit.
_NO_WINDOW = -1

_TOO_MANY = 429
#: Statuses below 500 with which Retry-After is a refusal. Others have it for other reasons, or it concerns one item.
_REFUSAL_WITH_RETRY_AFTER = {403, 408, 420, 425, _TOO_MANY}
#: Statuses with which "nothing left" is a refusal, where it says until when. GitHub and Google answer 403.
_REFUSAL_WITH_NOTHING_LEFT = {403, _TOO_MANY, 503}
#: A reset can be a little later than its window is long.
_SLACK_SECONDS = 2.0


@dataclass(frozen=True)
class ResponseReading:
    """What one response says about the budget.

    Attributes:
      refused(bool): Whether the API asked to wait: 429; Retry-After on 403, 408, 420, 425 and any 5xx; 403 or 503 with
        nothing left and a time when the quota returns.
      wait_seconds(float | None): How long it asked to wait, where it says so.
      reason(str): What it said, for people.
      statements(tuple[Statement, ...]): What its headers say about windows, as limiter.lua takes it: window (from 1;
        0: no length of a configured window is named), limit, remaining (-1: not said), whether a length is named at
        all, the header, in how many microseconds the quota returns (-1: not said).
    """

    refused: bool
    wait_seconds: float | None
    reason: str
    statements: tuple[Statement, ...]


_SAYS_NOTHING = ResponseReading(False, None, "", ())


def read_response(budget: Budget, status: int, headers: Mapping[str, str], received_at: datetime) -> ResponseReading:
    """Return what a response says about the budget.

    Parameters:
      budget(Budget): The budget whose windows the headers can name.
      status(int): The HTTP status.
      headers(Mapping[str, str]): Looked up without regard to case; malformed ones are ignored.
      received_at(datetime): When the response arrived, UTC-aware.
    """
    named = quotas(headers, received_at)
    statements = tuple(_statement(budget, quota) for quota in named if quota.limit is not None)
    refusal = _refusal(budget, status, headers, named, received_at)
    if refusal:
        wait_seconds, what = refusal
        return ResponseReading(True, wait_seconds, f"the API answered {status}, {what}", statements)
    return ResponseReading(False, None, "", statements) if statements else _SAYS_NOTHING


def _refusal(
    budget: Budget, status: int, headers: Mapping[str, str], named: Sequence[Quota], received_at: datetime
) -> tuple[float | None, str] | None:
    """Return for how long a response refuses, if it says so, and what it said; None where it does not refuse."""
    if status not in _REFUSAL_WITH_RETRY_AFTER and not 500 <= status < 600:
        return None
    asked = retry_after_seconds(headers, received_at)
    if asked is not None:
        return asked, retry_after_text(headers)
    resets = list(_resets(budget, named)) if status in _REFUSAL_WITH_NOTHING_LEFT else []
    if resets:
        return max(resets) + 1.0, f"nothing left for {duration(max(resets))}"  # servers mostly cut fractions off
    if status != _TOO_MANY:
        return None
    unread = retry_after_text(headers)
    return None, f"{unread}, which cannot be read" if unread else "without Retry-After"


def _resets(budget: Budget, named: Sequence[Quota]) -> Iterator[float]:
    """Yield in how many seconds spent quotas return. A 5000 that can be milliseconds must fit into its window."""
    for quota in named:
        if quota.remaining != 0 or quota.reset_seconds is None:
            continue
        if not quota.in_doubt or quota.reset_seconds <= _window_seconds(budget, quota) + _SLACK_SECONDS:
            yield quota.reset_seconds


def _window_seconds(budget: Budget, quota: Quota) -> float:
    """Return the length of the window that a quota is about; the shortest one, where that is not known."""
    same = [limit.seconds for limit in budget.limits if limit.requests == quota.limit]
    return quota.seconds or max(same, default=min(limit.seconds for limit in budget.limits))


def _statement(budget: Budget, quota: Quota) -> Statement:
    window = budget.window_of(quota)
    index = _NO_WINDOW if window is None else window
    remaining = -1 if quota.remaining is None else quota.remaining
    reset_us = -1 if quota.reset_seconds is None else round(quota.reset_seconds * 1e6)
    return index + 1, quota.limit or 0, remaining, int(quota.seconds is not None), quota.header[:60], reset_us
