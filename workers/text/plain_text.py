"""Removes control, invisible and line-breaking characters from text that is logged, printed or shown.

Text from an API, a row or a user's exception can contain any character. A newline forges a log line, an escape sequence
moves the cursor, a bidi override changes the order of shown text, and a zero-width character makes two ids look alike.
Such text is stored unchanged; where it is logged, printed or shown, a space replaces these characters.
"""

import re

_ENDS_OF_LINES = "\n\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029"
#: Invisible and control characters, by kind; a test compares them with the categories of Unicode.
_UNSAFE = (
    "\x00-\x1f\x7f-\x9f"  # C0 and C1: NUL, ANSI escapes
    "\u2028\u2029"  # the separators of lines and paragraphs
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u3164\uffa0"  # characters that are not drawn
    "\u200b-\u200f\u2060-\u206f\ufeff"  # zero width, the marks and isolates of bidi
    "\u202a-\u202e"  # bidi embeddings and overrides
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"  # marks of annotation, music, tags
    "\ud800-\udfff"  # halves of a surrogate pair, which cannot be written
)
_ANY = re.compile(f"[{_UNSAFE}]+")
_LINE_END = re.compile(f"\r\n|[{_ENDS_OF_LINES}]")


def one_line(text: str) -> str:
    """Return text on one line, of visible characters; a space replaces a run of others."""
    return text if text.isascii() and text.isprintable() else _ANY.sub(" ", text)


def lines(text: str) -> str:
    """Return text of visible characters, its lines kept."""
    return one_line(text) if text.isprintable() else "\n".join(map(one_line, _LINE_END.split(text)))


def block(text: str, indent: str = "  ") -> str:
    """Return text of several lines, such as a traceback, indented: no line looks like a log line of its own."""
    return "\n".join(f"{indent}{line}".rstrip() for line in lines(text).split("\n"))
