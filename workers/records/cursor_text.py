"""A list's cursor as it can be shown and stored in an id: short, and without a key that it may hold."""

import hashlib
from typing import Any

#: Marks of a link or a query in a cursor: both may hold a key.
_MAY_HOLD_A_KEY = set("?&=@")


def short(cursor: Any) -> str:
    """Return a cursor as it can be shown, and stand in an id.

    A long one, and one that may hold a key, as a digest: cursors often share their beginning.
    """
    if cursor is None:
        return "first"
    text = str(cursor)
    if len(text) <= 60 and text.isprintable() and not _MAY_HOLD_A_KEY & set(text):
        return text
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
