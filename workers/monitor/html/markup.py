"""Builds HTML from templates; every value is cleaned and escaped, because text from an API can be hostile."""

from collections.abc import Iterable
from html import escape

from workers.text.plain_text import lines


class Html(str):
    """Text that is HTML already. Only this module makes it."""


def fill(template: str, **values: object) -> Html:
    """Return a template with its {names} filled in, escaped.

    Parameters:
      template(str): HTML, written in this package; never data.
      values(object): The value for each name; `Html` is not escaped again.
    """
    return Html(template.format_map({name: _safe(value) for name, value in values.items()}))


def prose(text: str) -> Html:
    """Return a sentence, escaped, with text between `backticks` set as code."""
    parts = [escape(part) for part in lines(text).split("`")]
    if len(parts) % 2 == 0:  # an odd number of backticks
        return _safe(text)
    return Html("".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts)))


def join(parts: Iterable[Html], between: str = "") -> Html:
    """Return the parts, concatenated."""
    return Html(_safe(between).join(_safe(part) for part in parts))


def _safe(value: object) -> Html:
    return value if isinstance(value, Html) else Html(escape(lines(str(value)), quote=True))
