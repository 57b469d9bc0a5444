"""What a request is for, as its errors name it: the source, list page or details, and the id. Never the address.

A path holds a key where the API wants it there (`/bot<key>/...`), and that key cannot be told from an id.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_words: ContextVar[tuple[str, ...]] = ContextVar("asked_words", default=())


@contextmanager
def asking(word: str) -> Iterator[None]:
    """Name what the requests of the block are for, after what a block around it has named.

    Parameters:
      word(str): As "orders", "list page 3" or "details of 42".
    """
    token = _words.set((*_words.get(), word))
    try:
        yield
    finally:
        _words.reset(token)


def asked(otherwise: str) -> str:
    """Return what this thread asks for, "orders details of 42"; or `otherwise`, outside of every block."""
    return " ".join(_words.get()) or otherwise
