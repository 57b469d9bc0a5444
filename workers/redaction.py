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
_QUOTE = r"(?:\\?[\"'])"
#: What looks like a secret wherever it stands, and what is written instead. Each is linear in the text's length.
_PATTERNS = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^\s/?#]+(?=@)"), _HIDDEN),
    # A JSON Web Token
    (re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"), _HIDDEN),
    # Bearer ..., of which a word is none
    (re.compile(rf"\b({_SCHEMES})\s+(?=[\w.~+/-]{{0,100}}[\d=])[\w.~+/=-]{{8,}}", re.IGNORECASE), rf"\1 {_HIDDEN}"),
    # Authorization: Token ...
    (
        re.compile(
            rf"(authorization{_QUOTE}?\s{{0,3}}[=:]\s{{0,3}}{_QUOTE}?)(?!(?:{_SCHEMES})\s)[\w-]{{1,20}}\s+[^\s\"',;)}}\]]+",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
    # api_key=..., "token": "...", token: ... with a digit, for a word after a colon is mostly a sentence's
    (
        re.compile(
            rf"((?:{_WORDS})[\w-]{{0,40}}{_QUOTE}?\s{{0,3}}"
            rf"(?:=\s{{0,3}}b?{_QUOTE}?|:\s{{0,3}}b?{_QUOTE}|:\s{{0,3}}(?=[^\s\"'&,;)}}\]]{{0,100}}\d)))"
            rf"(?!{re.escape(_HIDDEN)})(?!(?:{_SCHEMES})\s)[^\s\"'&,;)}}\]\\]+",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
)


def hide(secret: str | None) -> None:
    """Let this text never be logged, stored or shown from now on. Very short ones are left alone."""
    if isinstance(secret, str) and len(secret) >= _SHORTEST:
        _known.add(secret)


def redact(text: str) -> str:
    """Return `text` without the secrets that are known, and without what looks like one."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def excerpt(text: str, length: int) -> str:
    """Return the beginning of a text without secrets: those that its end would cut in two are found before."""
    return redact(text[: 4 * length + 400])[:length]
