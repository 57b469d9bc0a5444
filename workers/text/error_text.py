"""An exception as text: one that a user's code raised may have a message that cannot be read."""

import traceback

from workers.text import redaction

#: Stands for a message that cannot be read: its `__str__` raises, or returns no text.
UNREADABLE = "its message cannot be read"
#: Longer than what is stored: a fingerprint is taken before the cut.
_DESCRIPTION_LENGTH = 2_000


def message_of(error: BaseException) -> str:
    """Return an exception's message, whatever its `__str__` does; `UNREADABLE` where there is none to be had.

    *Warning:* it holds what the exception says, secrets included: what is stored or shown goes through `redaction`.
    """
    try:
        return "".join([str(error)])  # of a subclass of str, the text alone
    except KeyboardInterrupt:
        raise
    except BaseException:  # SystemExit, too: an exception that cannot be described must not end its worker
        return UNREADABLE


def describe(error: BaseException) -> str:
    """Return an exception's type and the first line of its message, without secrets, bounded."""
    lines = message_of(error).strip().splitlines()
    return f"{type(error).__name__}: {redaction.excerpt(lines[0], _DESCRIPTION_LENGTH)}" if lines else _name(error)


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, or its description where its notes or its cause cannot be read.

    *Warning:* it holds secrets, as `message_of`.
    """
    try:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"{_name(error)}: {UNREADABLE}"


def _name(error: BaseException) -> str:
    return type(error).__name__
