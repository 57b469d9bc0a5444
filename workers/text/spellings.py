"""Decodes text from percent-encoding, JSON, HTML and `repr`, and maps each decoded character to its place.

A secret is searched in the decoded text, so that every mixture of encodings is match: `p%40ss`, `p\\u0040ss`,
`p&#64;ss`, `p\\x40ss`, and each of them encoded once more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

#: Layers of encoding that are decoded: JSON inside of JSON inside of a query.
_DEPTH = 3
_ESCAPE = re.compile(
    r"(?P<percent>(?:%[0-9a-f]{2})+)|(?P<bytes>(?:\\x[0-9a-f]{2})+)|(?P<units>(?:(?-i:\\u)[0-9a-f]{4})+)"
    r"|(?P<wide>(?-i:\\U)[0-9a-f]{8})|(?P<entity>&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});)|(?P<letter>\\[^\sxu])",
    re.IGNORECASE,
)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "0": "\0"}


@dataclass(frozen=True)
class Reading:
    """A decoded text, and where each of its characters begins in the original text.

    Attributes:
      text(str): The decoded text.
      starts(range | list[int]): One number for each character, and one for the end.
    """

    text: str
    starts: "range | list[int]"


def readings(text: str) -> Iterator[Reading]:
    """Yield a text as it is, then with one layer of encoding after the other removed, as long as there is one."""
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
    for match in _ESCAPE.finditer(reading.text):
        parts.append(reading.text[end : match.start()])
        starts += reading.starts[end : match.start()]
        position = match.start()
        for letter, width in _letters(match):
            parts.append(letter)
            starts.append(reading.starts[position])
            position += width
        end = match.end()
    parts.append(reading.text[end:])
    starts += reading.starts[end:]
    return Reading("".join(parts), starts)


def _letters(match: "re.Match[str]") -> Iterator[tuple[str, int]]:
    """Yield the characters that an escape encodes, and the width of each in the escape."""
    escape = match[0]
    if match.lastgroup == "percent":
        yield from _of_bytes(bytes.fromhex(escape.replace("%", "")), 3)
    elif match.lastgroup == "bytes":
        yield from _of_bytes(bytes.fromhex(escape.replace("\\x", "").replace("\\X", "")), 4)
    elif match.lastgroup == "units":
        yield from _of_units(bytes.fromhex(escape.replace("\\u", "")))
    elif match.lastgroup == "wide":
        number = int(escape[2:], 16)
        yield (chr(number) if number <= 0x10FFFF else escape[0]), len(escape)
    elif match.lastgroup == "entity":
        yield from _of_entity(escape)
    else:
        yield _LETTERS.get(escape[1], escape[1]), 2


def _of_bytes(body: bytes, width: int) -> Iterator[tuple[str, int]]:
    """Yield the characters of UTF-8; where it is not UTF-8 each byte is one, as in the `repr` of text."""
    try:
        for letter in body.decode():
            yield letter, width * len(letter.encode())
    except UnicodeDecodeError:
        yield from ((chr(byte), width) for byte in body)


def _of_units(body: bytes) -> Iterator[tuple[str, int]]:
    for letter in body.decode("utf-16-be", "surrogatepass"):  # half a surrogate pair is a character, too
        yield letter, 12 if letter > "\uffff" else 6


def _of_entity(escape: str) -> Iterator[tuple[str, int]]:
    """Yield the characters of an entity; the first has its whole width. An unknown entity is plain text."""
    letters = unescape(escape)
    for position, letter in enumerate(letters):
        yield letter, 1 if letters == escape else 0 if position else len(escape)
