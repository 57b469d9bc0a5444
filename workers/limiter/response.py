"""Answer: what a response means for its budget, from its status and headers alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from workers.limiter.budget import Budget
from workers.limiter.headers import Quota, quotas, retry_after_seconds, retry_after_text
from workers.text.durations import duration

#: Index of a quota that names no window by its length: the script looks for the one of its limit.
_NO_WINDOW = -1

_TOO_MANY = 429
#: Statuses below 500 with which Retry-After is a refusal: others have it for other reasons, or it is about one item.
_MAY_ASK = {403, 408, 420, 425, _TOO_MANY}
#: Statuses with which "nothing left" is one, where it says until when: GitHub and Google answer 403.
_MAY_BE_SPENT = {403, _TOO_MANY, 503}
#: A reset may say a little more than its window is long.
_SLACK_SECONDS = 2.0


@dataclass(frozen=True)
class Answer:
    """What one response says.

    Attributes:
      refused: Whether the API asked to wait: 429; Retry-After on 403, 408, 420, 425 and any 5xx; 403 or 503 with
        nothing left and a time when there is.
      wait_seconds: For how long, where it says so.
      reason: What it said, for people.
      said: What its headers say about windows, as the script takes it: window (from 1; 0: no
        length of ours is named), limit, remaining (-1: not said), whether a length is named at all, the header, in how
        many microseconds the quota returns (-1: not said).
    """

    refused: bool
    wait_seconds: float | None
    reason: str
    said: tuple[tuple[int, int, int, int, str, int], ...]


_SILENT = Answer(False, None, "", ())


def read_answer(budget: Budget, status: int, headers: Mapping[str, str], received_at: datetime) -> Answer:
    """Read a response.

    Parameters:
      budget(Budget): Whose windows the headers may name.
      status(int): The HTTP status.
      headers(Mapping[str, str]): Looked up without regard to case; malformed ones say nothing.
      received_at(datetime): When the response arrived, UTC-aware.
    """
    said = quotas(headers, received_at)
    statements = tuple(_statement(budget, quota) for quota in said if quota.limit is not None)
    refusal = _refusal(budget, status, headers, said, received_at)
    if refusal:
        wait_seconds, what = refusal
        return Answer(True, wait_seconds, f"the API answered {status}, {what}", statements)
    return Answer(False, None, "", statements) if statements else _SILENT


def _refusal(
    budget: Budget, status: int, headers: Mapping[str, str], said: Sequence[Quota], received_at: datetime
) -> tuple[float | None, str] | None:
    """Return for how long an answer refuses, if it says so, and what it said; None where it is no refusal."""
    if status not in _MAY_ASK and not 500 <= status < 600:
        return None
    asked = retry_after_seconds(headers, received_at)
    if asked is not None:
        return asked, retry_after_text(headers)
    resets = list(_resets(budget, said)) if status in _MAY_BE_SPENT else []
    if resets:
        return max(resets) + 1.0, f"nothing left for {duration(max(resets))}"  # whole seconds, mostly cut off
    if status != _TOO_MANY:
        return None
    unread = retry_after_text(headers)
    return None, f"{unread}, which cannot be read" if unread else "without Retry-After"


def _resets(budget: Budget, said: Sequence[Quota]) -> Iterator[float]:
    """Yield in how many seconds what is spent returns. A 5000 that may be milliseconds must fit into its window."""
    for quota in said:
        if quota.remaining != 0 or quota.reset_seconds is None:
            continue
        if not quota.in_doubt or quota.reset_seconds <= _window_seconds(budget, quota) + _SLACK_SECONDS:
            yield quota.reset_seconds


def _window_seconds(budget: Budget, quota: Quota) -> float:
    """Return how long the window is that a quota speaks of: the shortest, where that is not known."""
    same = [limit.seconds for limit in budget.limits if limit.requests == quota.limit]
    return quota.seconds or max(same, default=min(limit.seconds for limit in budget.limits))


def _statement(budget: Budget, quota: Quota) -> tuple[int, int, int, int, str, int]:
    window = budget.window_of(quota)
    index = _NO_WINDOW if window is None else window
    remaining = -1 if quota.remaining is None else quota.remaining
    reset_us = -1 if quota.reset_seconds is None else round(quota.reset_seconds * 1e6)
    return index + 1, quota.limit or 0, remaining, int(quota.seconds is not None), quota.header[:60], reset_us
