"""Collects the secrets of a connector and of each request, so that messages that repeat them can be redacted."""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import requests

from workers.errors import ConfigurationError
from workers.text import known_secrets, likely_keys
from workers.text.secret_names import SCHEMES, SHORTEST_KEY, is_secret, is_secret_parameter

#: A cookie whose value is shorter is a setting.
_SHORTEST_COOKIE = 8
#: Longer bodies are not searched for secrets.
_LONGEST_BODY = 65_536
#: Values that are never secrets, whatever their name.
_WORDS = {"true", "false", "none", "null", "basic", "bearer", "oauth", "yes", "no"}
#: Parts of names of attributes of an auth object that are not secrets.
_OPEN = ("user", "name", "url", "type", "scope", "realm", "header")


def given(secrets: "str | Sequence[str]", connector: str) -> list[str]:
    """Return the secrets that a user has named.

    Raises:
      ConfigurationError: A secret is not text, or too short to be searched for.
    """
    texts = [secrets] if isinstance(secrets, str) else secrets
    if not isinstance(texts, (list, tuple, set, frozenset)) or not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(f"Connector {connector!r}: secrets must be text, or a list of texts")
    if any(not known_secrets.is_usable(text) for text in texts):
        raise ConfigurationError(
            f"Connector {connector!r}: a secret must have at least {known_secrets.SHORTEST} characters, because a "
            f"shorter one also occurs in other text. Leave it out of secrets"
        )
    return list(texts)


def of_address(address: str) -> list[str]:
    """Return the secrets in a base URL: values of its query, and path segments that look like a key."""
    parts = urlsplit(address)
    named = [value for name, value in parse_qsl(parts.query) if is_secret(name) or len(value) >= SHORTEST_KEY]
    keys = [piece for segment in likely_keys.opaque_in(parts.path) for piece in likely_keys.pieces_of(unquote(segment))]
    return [*_usable(named), *keys]


def of_headers(headers: Mapping[Any, Any]) -> list[str]:
    """Return the secrets in the values of headers whose names say so."""
    pairs = ((_text(name), _text(value)) for name, value in headers.items())
    return _usable(part for name, value in pairs if is_secret(name, header=True) for part in _parts(name, value))


def has_secret_name(headers: Mapping[Any, Any], query: str) -> bool:
    """Whether the name of a header, or of a parameter of the query, says that its value is a secret."""
    parameters = parse_qsl(query, keep_blank_values=True)
    return any(is_secret(_text(name), header=True) for name in headers) or any(
        is_secret_parameter(name, value) for name, value in parameters
    )


def of_auth(auth: Any) -> list[str]:
    """Return the current secrets of an auth object, whose attributes have a renewed token, or of (user, password)."""
    if isinstance(auth, tuple):
        return _of_pair(*map(_text, auth)) if len(auth) == 2 else []
    kept = dict(getattr(auth, "__dict__", {}))
    if {"username", "password"} <= kept.keys():
        return _of_pair(_text(kept["username"]), _text(kept["password"]))
    return _usable(value for name, value in _attributes(kept) if is_secret(name) or _may_be_one(name, value))


def _attributes(kept: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield an object's text attributes with their names, and the secrets of objects inside: OAuth1 has a client."""
    for name, value in kept.items():
        yield from _leaves(value.decode("utf-8", "replace") if isinstance(value, bytes) else value, name)
        for inner, text in dict(getattr(value, "__dict__", {})).items():
            if is_secret(inner):
                yield inner, _text(text)


def _may_be_one(name: str, value: str) -> bool:
    return len(value) >= SHORTEST_KEY and not any(word in name.lower() for word in _OPEN)


def of_request(prepared: requests.PreparedRequest) -> list[str]:
    """Return the secrets of a prepared request, with what its auth object has added."""
    found = of_headers(prepared.headers)
    url = str(prepared.url)
    if "?" in url:
        found += _usable(_named(parse_qsl(urlsplit(url).query)))
    if prepared.body:
        found += _usable(_named(_fields(prepared)))
    return found


def _named(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (value for name, value in pairs if is_secret_parameter(name, value))


def _fields(prepared: requests.PreparedRequest) -> Iterator[tuple[str, str]]:
    """Yield the fields of a form or JSON body with their names."""
    body = prepared.body
    if not isinstance(body, (str, bytes)) or len(body) > _LONGEST_BODY:
        return
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    if "json" in str(prepared.headers.get("Content-Type", "")).lower():
        try:
            yield from _leaves(json.loads(text))
        except (ValueError, RecursionError):
            return
    else:
        yield from parse_qsl(text)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    elif isinstance(value, str):
        yield name, value
    elif type(value) is int and is_secret(name):
        yield name, str(value)


def _parts(name: str, value: str) -> Iterator[str]:
    """Yield the secrets in a header's value, which can begin with a scheme, and can have several."""
    if name.lower() == "cookie":
        for cookie in value.split(";"):
            label, _, content = cookie.strip().partition("=")
            if is_secret(label) or len(content) >= _SHORTEST_COOKIE:
                yield content
        return
    scheme, _, rest = value.partition(" ")
    if not rest or scheme.lower() not in SCHEMES:
        yield value
        return
    yield rest
    for parameter in rest.split(","):
        label, is_parameter, content = parameter.strip().partition("=")
        if is_parameter and content.strip('="') and (is_secret(label) or len(content) >= SHORTEST_KEY):
            yield content.strip('"')
    if scheme.lower() == "basic":
        yield from _of_basic(rest)


def _of_basic(encoded: str) -> Iterator[str]:
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8", "replace").partition(":")
    except (binascii.Error, ValueError):
        return
    yield from _of_pair(user, password)


def _of_pair(user: str, password: str) -> list[str]:
    """Return the secrets of (user, password): the password; and the user, if APIs accept a key there."""
    is_user_the_key = len(password) < known_secrets.SHORTEST or password.lower() in ("api_token", "x-oauth-basic")
    return _usable([password, user] if is_user_the_key or likely_keys.is_opaque(user) else [password])


def _usable(values: Iterable[str]) -> list[str]:
    return [value for value in values if value.lower() not in _WORDS and known_secrets.is_usable(value)]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
