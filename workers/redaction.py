"""Redaction: secrets are taken out of what is logged, stored or shown."""

import re

_HIDDEN = "***"
#: Shorter ones would take ordinary words out of every sentence.
_SHORTEST = 6

_known: set[str] = set()

_WORDS = (
    "api[_-]?key|apikey|access[_-]?key|token|secret|password|passwd|pwd|authorization|signature|credentials?"
    "|session[_-]?id|cookie"
)
_SCHEMES = "Bearer|Basic|Digest"
#: What looks like a secret wherever it stands, and what is written instead. Each is linear in the text's length.
_PATTERNS = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]*(?=@)"), _HIDDEN),
    # A JSON Web Token
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"), _HIDDEN),
    # Authorization: Bearer ...
    (re.compile(rf"\b({_SCHEMES})\s+[\w.~+/=-]{{8,}}", re.IGNORECASE), rf"\1 {_HIDDEN}"),
    # api_key=..., "token": "..."
    (
        re.compile(
            rf"((?:{_WORDS})[\w-]{{0,40}}[\"']?\s{{0,3}}[=:]\s{{0,3}}[\"']?)"
            rf"(?!{re.escape(_HIDDEN)})(?!(?:{_SCHEMES})\s)[^\s\"'&,;)}}\]]+",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
)


def hide(secret: str | None) -> None:
    """Let this text never be logged, stored or shown from now on. Very short ones are left alone."""
    if secret and len(secret) >= _SHORTEST:
        _known.add(secret)


def redact(text: str) -> str:
    """Return `text` without the secrets that are known, and without what looks like one."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
