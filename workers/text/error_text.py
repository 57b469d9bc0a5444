"""Converts an exception to text, also where its message cannot be read, without ever raising another one."""

import traceback

from workers.text import redaction

#: Replaces a message that cannot be read: its `__str__` raises, or returns no text.
UNREADABLE = "its message cannot be read"
#: Longer than the stored text: a fingerprint is computed before the cut.
_DESCRIPTION_LENGTH = 2_000


def message_of(error: BaseException) -> str:
    """Return an exception's message; `UNREADABLE` where its `__str__` fails.

    *Warning:* the message can contain secrets. Use `redaction` before it is stored or shown.
    """
    try:
        return "".join([str(error)])  # the plain text, where str() returned a subclass
    except KeyboardInterrupt:
        raise
    except BaseException:  # also SystemExit: an exception that cannot be read must not end its worker
        return UNREADABLE


def describe(error: BaseException) -> str:
    """Return an exception's type and the first line of its message, without secrets, at most 2,000 characters."""
    lines = message_of(error).strip().splitlines()
    return f"{type(error).__name__}: {redaction.excerpt(lines[0], _DESCRIPTION_LENGTH)}" if lines else _name(error)


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, or its type where its notes or its cause cannot be read.

    *Warning:* it can contain secrets, as `message_of`.
    """
    try:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"{_name(error)}: {UNREADABLE}"


def _name(error: BaseException) -> str:
    return type(error).__name__
