"""Masks the parts of a URL path that look like an API key, wherever an address is shown."""

import re

_HIDDEN = "***"
#: A segment of words has pieces of letters, or of digits: `order-lines`, `2024-01`. A key has long pieces of both.
_PIECE = re.compile(r"[A-Za-z0-9]+")
_MIXED_LENGTH, _ANY_LENGTH = 12, 24


def is_opaque(segment: str) -> bool:
    """Return whether a segment of a path looks like a key: `bot123456:AAExample0Key9`, not `order-lines`.

    *Warning:* a UUID looks like a key, and a short key, `K-12345678`, does not: name that as a secret of the connector.
    """
    return any(_is_long(piece) for piece in _PIECE.findall(segment))


def _is_long(piece: str) -> bool:
    is_mixed = not piece.isalpha() and not piece.isdigit()
    return len(piece) >= (_MIXED_LENGTH if is_mixed else _ANY_LENGTH)


def opaque_in(path: str) -> list[str]:
    """Return the segments of a path that look like a key."""
    return [segment for segment in path.split("/") if is_opaque(segment)]


def pieces_of(segment: str) -> list[str]:
    """Return such a segment and its long pieces: of `bot123456:AAExample` an API repeats only the end."""
    return [segment, *(piece for piece in _PIECE.findall(segment) if _is_long(piece))]


def masked(path: str) -> str:
    """Return a path with these segments hidden."""
    return "/".join(_HIDDEN if is_opaque(segment) else segment for segment in path.split("/"))
