"""Extracts the API's own error message from a response, from its body or WWW-Authenticate: one line, no secrets."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from workers.sources import body_decoding
from workers.text import redaction

_LENGTH = 1_000
#: A longer body is not searched for a message.
_LONGEST_BODY = 100_000
#: Keys that can contain a message, the most informative first; below some of them it is nested.
_KEYS = (
    *("message", "error_description", "error", "detail", "errors", "title", "description", "error_message"),
    *("errorMessage", "errors_description", "reason", "msg", "fault", "faultstring"),
)
#: Keys that can contain a list; its first entry is used.
_LISTS = {"errors", "detail"}
_DEEPEST = 4
_MOST_NAMES = 5
_DESCRIPTION = re.compile(r'error_description="((?:[^"\\]|\\.){1,500})"', re.IGNORECASE)
#: The beginnings of an HTML page and of damaged JSON, which are not plain text.
_NO_TEXT = ("<", "{", "[", '"')


def of(response: requests.Response) -> str:
    """Return the error message of a response, at most 1,000 characters; empty if it has none.

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


def _in(value: Any, deepest: int) -> Iterator[str]:
    """Yield the messages in decoded JSON, the most informative first, as `message` or `errors[0].detail`."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, str):
        yield from _first_line(value)
    elif isinstance(value, Mapping) and deepest:
        known = [key for key in _KEYS if key in value and (key in _LISTS or not isinstance(value[key], list))]
        for key in known:
            yield from _in(value[key], deepest - 1)
        if not known and deepest < _DEEPEST:  # errors by field name, as of a form
            for name in list(value)[:_MOST_NAMES]:
                yield from (f"{name}: {line}" for line in _in(value[name], 0))


def _line_of(body: bytes) -> Iterator[str]:
    """Yield the body if it is a single line of plain text."""
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
