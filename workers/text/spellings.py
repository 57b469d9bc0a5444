"""Spellings: how a text reads behind percent-encoding, JSON, HTML and `repr`, and where in it each character stands.

A secret is looked for in what a text reads as, so that every mixture of spellings is found: `p%40ss`, `p\\u0040ss`,
`p&#64;ss`, `p\\x40ss`, and each of them encoded once more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

#: JSON inside of JSON inside of a query: more is not looked behind.
_DEPTH = 3
_ESCAPE = re.compile(
    r"(?P<percent>(?:%[0-9a-f]{2})+)|(?P<bytes>(?:\\x[0-9a-f]{2})+)|(?P<units>(?:(?-i:\\u)[0-9a-f]{4})+)"
    r"|(?P<wide>(?-i:\\U)[0-9a-f]{8})|(?P<entity>&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});)|(?P<letter>\\[^\sxu])",
    re.IGNORECASE,
)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "0": "\0"}


@dataclass(frozen=True)
class Reading:
    """A text as it reads, and where each character of it begins in the text as it was.

    Attributes:
      text: As it reads.
      starts: One number for each character, and one for the end.
    """

    text: str
    starts: "range | list[int]"


def readings(text: str) -> Iterator[Reading]:
    """Yield a text as it is, then with one layer of encoding taken off after the other, as long as there is one."""
    reading = Reading(text, range(len(text) + 1))
    for _ in range(_DEPTH):
        yield reading
        if not _ESCAPE.search(reading.text):
            return
        reading = _behind(reading)
    yield reading


def _behind(reading: Reading) -> Reading:
    parts: list[str] = []
    starts: list[int] = []
    end = 0
    for found in _ESCAPE.finditer(reading.text):
        parts.append(reading.text[end : found.start()])
        starts += reading.starts[end : found.start()]
        position = found.start()
        for letter, width in _letters(found):
            parts.append(letter)
            starts.append(reading.starts[position])
            position += width
        end = found.end()
    parts.append(reading.text[end:])
    starts += reading.starts[end:]
    return Reading("".join(parts), starts)


def _letters(found: "re.Match[str]") -> Iterator[tuple[str, int]]:
    """Yield the characters an escape stands for, and how much of it is each one's."""
    escape = found[0]
    if found.lastgroup == "percent":
        yield from _of_bytes(bytes.fromhex(escape.replace("%", "")), 3)
    elif found.lastgroup == "bytes":
        yield from _of_bytes(bytes.fromhex(escape.replace("\\x", "").replace("\\X", "")), 4)
    elif found.lastgroup == "units":
        yield from _of_units(bytes.fromhex(escape.replace("\\u", "")))
    elif found.lastgroup == "wide":
        number = int(escape[2:], 16)
        yield (chr(number) if number <= 0x10FFFF else escape[0]), len(escape)
    elif found.lastgroup == "entity":
        yield from _of_entity(escape)
    else:
        yield _LETTERS.get(escape[1], escape[1]), 2


def _of_bytes(body: bytes, width: int) -> Iterator[tuple[str, int]]:
    """Yield the characters of UTF-8; where it is none each byte is one, as in the `repr` of text."""
    try:
        for letter in body.decode():
            yield letter, width * len(letter.encode())
    except UnicodeDecodeError:
        yield from ((chr(byte), width) for byte in body)


def _of_units(body: bytes) -> Iterator[tuple[str, int]]:
    for letter in body.decode("utf-16-be", "surrogatepass"):  # half a pair is a character, too
        yield letter, 12 if letter > "\uffff" else 6


def _of_entity(escape: str) -> Iterator[tuple[str, int]]:
    """Yield the characters of an entity: the first has all of it. One that HTML does not know is text."""
    letters = unescape(escape)
    for position, letter in enumerate(letters):
        yield letter, 1 if letters == escape else 0 if position else len(escape)
