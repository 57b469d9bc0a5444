"""Escapes text for Streamlit's toasts, which are Markdown: a name or an error message is then shown as it is."""

import re

from workers.text.plain_text import one_line

#: The characters that Markdown, and Streamlit's own extensions of it, take for more than text.
_SPECIAL = re.compile(r"[\\`*_\[\]<>~$:#!]")


def plain(text: str) -> str:
    """Return text as Markdown that shows exactly this text, in one line."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text))
