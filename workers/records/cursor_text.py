"""Shortens a list's cursor for messages and ids, and hides it if it can hold an API key."""

import hashlib
from typing import Any

#: Characters of a link or a query; both can hold an API key.
_MAY_HOLD_A_KEY = set("?&=@")


def short(cursor: Any) -> str:
    """Return a cursor as text for messages and ids.

    A long cursor, and one that can hold a key, is returned as a digest, because cursors often share their beginning.
    """
    if cursor is None:
        return "first"
    text = str(cursor)
    if len(text) <= 60 and text.isprintable() and not _MAY_HOLD_A_KEY & set(text):
        return text
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
