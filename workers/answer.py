"""Answer: what a response means for its budget, from its status and headers alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from workers.budget import Budget
from workers.headers import Quota, quotas, retry_after_seconds

#: Index of a quota that names no window by its length: the script looks for the one of its limit.
_NO_WINDOW = -1


@dataclass(frozen=True)
class Answer:
    """What one response says.

    Attributes:
      refused: Whether the API asked to wait: 429, or 503 with Retry-After.
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
    if status not in (429, 503):
        return Answer(False, None, "", statements) if statements else _SILENT
    asked = retry_after_seconds(headers, received_at)
    if status == 503 and asked is None:
        return Answer(False, None, "", statements)
    if asked is not None:
        return Answer(True, asked, f"the API answered {status}, Retry-After {headers['Retry-After'][:40]}", statements)
    resets = [quota.reset_seconds for quota in said if quota.remaining == 0 and quota.reset_seconds is not None]
    if resets:
        wait = max(resets) + 1.0  # whole seconds, mostly cut off
        return Answer(True, wait, f"the API answered {status}, nothing left for {max(resets):g} s", statements)
    return Answer(True, None, f"the API answered {status}, without Retry-After", statements)


def _statement(budget: Budget, quota: Quota) -> tuple[int, int, int, int, str, int]:
    window = budget.window_of(quota)
    index = _NO_WINDOW if window is None else window
    remaining = -1 if quota.remaining is None else quota.remaining
    reset_us = -1 if quota.reset_seconds is None else round(quota.reset_seconds * 1e6)
    return index + 1, quota.limit or 0, remaining, int(quota.seconds is not None), quota.header[:60], reset_us
