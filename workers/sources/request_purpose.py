"""Names the current request for error messages by its purpose, "orders details of 42", never by its URL.

A path can contain a key (`/bot<key>/...`), and nothing distinguishes that key from an id.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_words: ContextVar[tuple[str, ...]] = ContextVar("asked_words", default=())


@contextmanager
def asking(word: str) -> Iterator[None]:
    """Name the purpose of the requests in the block; an outer block's name comes first.

    Parameters:
      word(str): For instance "orders", "list page 3" or "details of 42".
    """
    token = _words.set((*_words.get(), word))
    try:
        yield
    finally:
        _words.reset(token)


def asked(otherwise: str) -> str:
    """Return the purpose of this thread's request, "orders details of 42"; outside all blocks, `otherwise`."""
    return " ".join(_words.get()) or otherwise
