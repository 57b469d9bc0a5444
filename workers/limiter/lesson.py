"""Lesson: what the profile auto learned from a refusal that nothing explains, and for how long that holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """What auto learned. `Lesson()` is nothing.

    Attributes:
      profile: `paced`; empty where it is as configured again.
      why: What taught it.
      widened_seconds: By how much windows are taken longer than configured.
      seconds_ago: When it was learned, or forgotten.
      lasts_seconds: It is forgotten after that long without a refusal; 0: nothing was ever learned.
    """

    profile: str = ""
    why: str = ""
    widened_seconds: float = 0.0
    seconds_ago: float = 0.0
    lasts_seconds: float = 0.0
