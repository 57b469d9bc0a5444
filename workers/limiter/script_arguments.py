"""Script arguments: a budget, a request for permits and a lesson in the form that limiter.lua takes."""

import struct
from typing import Any

from workers.limiter.budget import Budget
from workers.limiter.lesson import Lesson

#: In the order in which limiter.lua numbers them.
_PROFILES = ("burst", "paced", "auto")


def stated(budget: Budget) -> bytes:
    """Return what every call says of the budget."""
    numbers = [budget.share, _PROFILES.index(budget.profile), budget.trust_server]
    for limit in budget.limits:
        numbers += limit.requests, limit.window_microseconds, limit.seconds, limit.burst
    return struct.pack(f">{len(numbers)}d", *numbers)


def taught(lesson: Lesson) -> dict[str, Any]:
    """Return what the script must know of what auto learned before."""
    return {
        "profile": lesson.profile,
        "why": lesson.why,
        "widened_us": round(lesson.widened_seconds * 1e6),
        "learned_us": round(lesson.seconds_ago * 1e6),
        "relax_us": round(lesson.lasts_seconds * 1e6),
    }


def lesson_of(state: dict[str, Any]) -> Lesson:
    """Return what auto has learned, of a state as the script reports it."""
    return Lesson(
        profile="paced" if state["level"] else "",
        why=state["paced_why"] if state["level"] else "",
        widened_seconds=state["widened"] / 1e6,
        seconds_ago=state["learned"] / 1e6,
        lasts_seconds=state["relax"] / 1e6,
    )


def asked(ask: dict[str, Any] | None) -> list[Any]:
    """Return a question for permits; None: nothing is asked."""
    if ask is None:
        return ["", "", "", 0]
    numbers = struct.pack(">4d", ask["weight"], ask["ttl_us"], ask["patience_us"], ask["knock"])
    return [numbers, ask["waiter"], ask["run"], len(ask["ids"]), *ask["ids"]]
