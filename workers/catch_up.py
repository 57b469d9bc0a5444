"""CatchUp: what becomes of a schedule's slots that passed while no scheduler ran."""

from enum import StrEnum

from workers.errors import UsageError


class CatchUp(StrEnum):
    """Which slots are made up for. The others leave a row, with the reason."""

    #: The newest one.
    LATEST = "latest"
    #: None.
    NONE = "none"
    #: Each, one after the other.
    ALL = "all"


def read(text: str) -> CatchUp:
    """Return what the text names.

    Raises:
      UsageError: It names none; the message lists them.
    """
    if text not in list(CatchUp):
        raise UsageError(f"catch-up cannot be {str(text)[:40]!r}: use {', '.join(CatchUp)}")
    return CatchUp(text)
