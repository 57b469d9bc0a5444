"""Redacts secrets from text that is logged, stored or shown: known ones in every encoding, and what looks like one."""

import re
from collections.abc import Iterator

from workers.text import likely_keys, spellings
from workers.text.known_secrets import hide, known
from workers.text.secret_names import NAMES_IN_TEXT, SCHEMES_IN_TEXT, is_secret_parameter
from workers.text.spellings import Reading

__all__ = ["excerpt", "hide", "redact"]

_HIDDEN = "***"
#: A shorter secret is hidden only as a separate word, because it can be a part of a word by chance.
_SHORTEST_WITHIN = 8
#: Where the end of a text cuts a secret, this many of its first characters identify it.
_SHORTEST_CUT = 4
#: What the end of a text leaves of an escape.
_HALF_ESCAPE = re.compile(r"(?:%[0-9a-f]?|\\+(?:u[0-9a-f]{0,3}|x[0-9a-f]?)?|&[#\w]{0,31})$", re.IGNORECASE)
_WITH_SPACES = re.compile(r"\s")
_SPACES = re.compile(r"[\s+]")

_QUOTE = r"(?:\\?[\"'])"
#: Patterns of likely secrets, and their replacement. Each takes time linear in the text's length.
_PATTERNS = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^\s/?#]+(?=@)"), _HIDDEN),
    # A JSON Web Token
    (re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"), _HIDDEN),
    # Bearer ..., of which a word is none
    (
        re.compile(rf"\b({SCHEMES_IN_TEXT})\s+(?=[\w.~+/-]{{0,100}}[\d=])[\w.~+/=-]{{8,}}", re.IGNORECASE),
        rf"\1 {_HIDDEN}",
    ),
    # Authorization: Token ...
    (
        re.compile(
            rf"(authorization{_QUOTE}?\s{{0,3}}[=:]\s{{0,3}}{_QUOTE}?)(?!(?:{SCHEMES_IN_TEXT})\s)[\w-]{{1,20}}\s+[^\s\"',;)}}\]]+",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
    # api_key=..., "token": "...", token: ... with a digit, because a word after a colon is mostly a sentence
    (
        re.compile(
            rf"((?:{NAMES_IN_TEXT})[\w-]{{0,40}}{_QUOTE}?\s{{0,3}}"
            rf"(?:=\s{{0,3}}b?{_QUOTE}?|:\s{{0,3}}b?{_QUOTE}|:\s{{0,3}}(?=[^\s\"'&,;)}}\]]{{0,100}}\d)))"
            rf"(?!{re.escape(_HIDDEN)})(?!(?:{SCHEMES_IN_TEXT})\s)[^\s\"'&,;)}}\]\\]+",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
)


#: An address in a sentence, or in urllib3's messages ("with url: /path?query"). A character bounds both repeats.
_ADDRESS = re.compile(r"((?:https?://[^\s/?#\"'<>]+|\burl: ))(/[^\s?#\"'<>]*)", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<=[?&])([\w.%~\[\]-]{1,60})=([^\s&#\"'<>]+)")


def redact(text: str) -> str:
    """Return `text` without known secrets, and without what looks like a secret.

    It finds secrets in plain text, percent- or plus-encoded, in base64, and escaped by JSON, HTML or `repr`.
    """
    return _without_likely(_without_known(text, is_cut=False))


def excerpt(text: str, length: int) -> str:
    """Return the first `length` characters of a text without secrets, also where the cut falls into a secret."""
    looked_at = 4 * length + 400
    is_cut = len(text) > looked_at
    beginning = _HALF_ESCAPE.sub("", text[:looked_at]) if is_cut else text
    return _without_likely(_without_known(beginning, is_cut=is_cut))[:length]


def _without_known(text: str, *, is_cut: bool) -> str:
    secrets = known()
    spans = [span for reading in spellings.readings(text) for span in _spans(reading, secrets, is_cut=is_cut)]
    parts, end = [], 0
    for start, stop in sorted(spans):
        if stop <= end:
            continue
        if start >= end:
            parts += [text[end:start], _HIDDEN]
        end = stop
    return "".join([*parts, text[end:]])


def _spans(reading: Reading, secrets: list[str], *, is_cut: bool) -> Iterator[tuple[int, int]]:
    """Yield where in the original text the secrets are that this reading of it contains."""
    plain, spaced = reading.text, _SPACES.sub(" ", reading.text)
    for secret in secrets:
        has_spaces = bool(_WITH_SPACES.search(secret))
        where, wanted = (spaced, _SPACES.sub(" ", secret)) if has_spaces else (plain, secret)
        for start in _places(where, wanted):
            yield reading.starts[start], reading.starts[start + len(wanted)]
        if is_cut and (cut := _cut(where, wanted)):
            yield reading.starts[len(where) - cut], reading.starts[len(where)]


def _places(text: str, secret: str) -> Iterator[int]:
    start = text.find(secret)
    while start >= 0:
        end = start + len(secret)
        if len(secret) >= _SHORTEST_WITHIN or _is_word(text, start, end):
            yield start
            start = text.find(secret, end)
        else:
            start = text.find(secret, start + 1)


def _is_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return not (_is_letter(before) and _is_letter(text[start])) and not (
        _is_letter(after) and _is_letter(text[end - 1])
    )


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_"


def _cut(text: str, secret: str) -> int:
    """Return how many characters at the end of the text begin a secret; 0 where they are too few to decide."""
    tail = text[-len(secret) + 1 :]
    start = tail.find(secret[:_SHORTEST_CUT])
    while start >= 0 and not secret.startswith(tail[start:]):
        start = tail.find(secret[:_SHORTEST_CUT], start + 1)
    return len(tail) - start if start >= 0 else 0


def _without_likely(text: str) -> str:
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    if "/" in text:
        text = _ADDRESS.sub(lambda match: match[1] + likely_keys.masked(match[2]), text)
    return _PARAMETER.sub(_of_parameter, text) if "=" in text else text


def _of_parameter(found: "re.Match[str]") -> str:
    name, value = found[1], found[2]
    return f"{name}={_HIDDEN}" if is_secret_parameter(name, value) else found[0]
