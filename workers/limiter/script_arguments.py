"""Encodes a budget, a permit request and a lesson as the arguments of limiter.lua, and decodes a lesson."""

import struct

from workers.limiter.budget import Budget
from workers.limiter.lesson import Lesson
from workers.limiter.script_messages import NewState, PermitRequest, StateReport

#: In the order in which limiter.lua numbers them.
_PROFILES = ("burst", "paced", "auto")


def of_budget(budget: Budget) -> bytes:
    """Return the argument that describes the budget, the same in every call."""
    numbers = [budget.share, _PROFILES.index(budget.profile), budget.trust_server]
    for limit in budget.limits:
        numbers += limit.requests, limit.window_microseconds, limit.seconds, limit.burst
    return struct.pack(f">{len(numbers)}d", *numbers)


def put_lesson(new: NewState, lesson: Lesson) -> None:
    """Write what the profile `auto` had learned into the request that makes lost state anew."""
    new["profile"] = lesson.profile
    new["why"] = lesson.why
    new["widened_us"] = round(lesson.widened_seconds * 1e6)
    new["learned_us"] = round(lesson.seconds_ago * 1e6)
    new["relax_us"] = round(lesson.lasts_seconds * 1e6)


def lesson_of(report: StateReport) -> Lesson:
    """Return what the profile `auto` has learned, from a report of the state."""
    return Lesson(
        profile="paced" if report["level"] else "",
        why=report["paced_why"] if report["level"] else "",
        widened_seconds=report["widened"] / 1e6,
        seconds_ago=report["learned"] / 1e6,
        lasts_seconds=report["relax"] / 1e6,
    )


def of_permit_request(ask: PermitRequest | None) -> list[bytes | str | int]:
    """Return the arguments of a permit request; None: no permit is requested."""
    if ask is None:
        return ["", "", "", 0]
    numbers = struct.pack(">4d", ask["weight"], ask["ttl_us"], ask["patience_us"], ask["knock"])
    return [numbers, ask["waiter"], ask["run"], len(ask["ids"]), *ask["ids"]]
