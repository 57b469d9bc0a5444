"""What an API says of a refusal in its own words: one line, from the body or from WWW-Authenticate, without secrets."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from workers.sources import body_decoding
from workers.text import redaction

_LENGTH = 1_000
#: A text of more bytes is no message.
_LONGEST_BODY = 100_000
#: Keys that hold a message, the most telling first; below some of them it lies deeper.
_KEYS = (
    *("message", "error_description", "error", "detail", "errors", "title", "description", "error_message"),
    *("errorMessage", "errors_description", "reason", "msg", "fault", "faultstring"),
)
#: Those that may hold a list, of which the first tells.
_LISTS = {"errors", "detail"}
_DEEPEST = 4
_MOST_NAMES = 5
_DESCRIPTION = re.compile(r'error_description="((?:[^"\\]|\\.){1,500})"', re.IGNORECASE)
#: How a page for people begins, and JSON that is broken: no line of text.
_NO_TEXT = ("<", "{", "[", '"')


def of(response: requests.Response) -> str:
    """Return what a refusal says of itself, at most 200 characters; empty where that is nothing for people.

    Parameters:
      response(requests.Response): Its body has been read.
    """
    text = next(_found(response), "")
    return redaction.excerpt(text, _LENGTH)


def _found(response: requests.Response) -> Iterator[str]:
    if len(response.content) <= _LONGEST_BODY:
        try:
            yield from _in(body_decoding.decode(response), _DEEPEST)
        except RecursionError:
            return
        except ValueError:
            yield from _line_of(response.content)
    challenge = _DESCRIPTION.search(response.headers.get("WWW-Authenticate", "")[:4_000])
    if challenge:
        yield from _first_line(challenge[1])


def _in(said: Any, deepest: int) -> Iterator[str]:
    """Yield the messages of decoded JSON, the most telling first, as `message` or `errors[0].detail`."""
    if isinstance(said, list):
        said = said[0] if said else None
    if isinstance(said, str):
        yield from _first_line(said)
    elif isinstance(said, Mapping) and deepest:
        known = [key for key in _KEYS if key in said and (key in _LISTS or not isinstance(said[key], list))]
        for key in known:
            yield from _in(said[key], deepest - 1)
        if not known and deepest < _DEEPEST:  # the errors of a form, by the names of its fields
            for name in list(said)[:_MOST_NAMES]:
                yield from (f"{name}: {line}" for line in _in(said[name], 0))


def _line_of(body: bytes) -> Iterator[str]:
    """Yield a body that is one line of text and nothing else."""
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return
    if len(text.splitlines()) == 1 and not text.startswith(_NO_TEXT) and len(text) <= 5 * _LENGTH:
        yield from _first_line(text)


def _first_line(text: str) -> Iterator[str]:
    lines = text.strip().splitlines()
    if lines and not lines[0].startswith("<"):
        yield " ".join(lines[0].split())
