"""Lesson: what the profile `auto` learned from an unexplained refusal (a pace, longer windows); how long it holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """What `auto` learned. `Lesson()` is nothing.

    Attributes:
      profile(str): `paced`; empty where the budget is as configured again.
      why(str): The refusal that taught it.
      widened_seconds(float): By how much windows are longer than configured.
      seconds_ago(float): When it was learned, or forgotten.
      lasts_seconds(float): After that long without a refusal it is forgotten; 0: nothing was ever learned.
    """

    profile: str = ""
    why: str = ""
    widened_seconds: float = 0.0
    seconds_ago: float = 0.0
    lasts_seconds: float = 0.0
