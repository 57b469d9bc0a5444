"""Builds the URLs of requests: quotes ids, joins the base URL, and finds URLs that would be changed when sent."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlsplit
from uuid import UUID

from workers.text import likely_keys, redaction

#: URL parsers remove these characters, or stop at them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_USER = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//[^/?#]*@", re.IGNORECASE)
_NO_HOST = re.compile(r"https?:(?!//)", re.IGNORECASE)
#: A % that is not part of a percent-encoding. If there is one, urllib3 encodes every other % again.
_STRAY = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)
_DOTS = {".", ".."}
_REPAIR = 'quote ids with path("api/items", id)'


class NotQuoted(ValueError):
    """The address given to `path` has a query, or a `..` segment: it can contain an id that is not quoted."""


def path(address: str, *ids: str | int | UUID) -> str:
    """Return `address` with each id appended as one path segment: `path("api/items", "a/b")` is api/items/a%2Fb.

    Parameters:
      address(str): The address before the ids, relative to the base URL or absolute. It is not quoted.
      ids(str | int | UUID): One path segment each, quoted completely.

    Returns:
      str: The URL for a `requests.Request`.

    Raises:
      ValueError: An id is empty, `.` or `..`, which no HTTP client can send as a segment; or the address has a query
        or a `..` segment.
      TypeError: An id has another type, or there is no id.

    *Warning:* a server that decodes URLs twice still sees the / of a%2Fb. Such an API needs its ids in `params`.
    """
    if not ids:
        raise TypeError('path() needs the address and at least one id, as in path("api/items", self.external_id)')
    if "?" in address or "#" in address:
        raise NotQuoted(f"the address {_shown(address)!r} has a query or a fragment: give the query as params=")
    if flaw := flaw_of(address):
        raise NotQuoted(f"the address {_shown(address)!r} {flaw}")
    segments = [_quoted(segment) for segment in ids]
    return "/".join([address.removesuffix("/"), *segments] if address else segments)


def _shown(address: str) -> str:
    """Return an address for messages, without parts that can be a key."""
    before, mark, query = address.partition("?")
    return redaction.redact(f"{likely_keys.masked(before)}{mark}{query}")


def _quoted(segment: str | int | UUID) -> str:
    if isinstance(segment, bool) or not isinstance(segment, (str, int, UUID)):
        raise TypeError(f"an id in an address is text, a whole number or a UUID, not {type(segment).__name__}")
    text = str(segment)
    if text in _DOTS or not text:
        raise ValueError(
            f"the id {text!r} cannot be sent as a part of an address: every HTTP client drops it, and asks for another "
            f"resource. Give it as params= if the API accepts that, or raise Skip in create_model_from_list_item"
        )
    return quote(text, safe="")


def join(base_url: str, address: str) -> str:
    """Return the absolute URL of an address. Unlike `urljoin` it keeps `..`, empty segments and a final `;`.

    Parameters:
      base_url(str): It ends with a slash.
      address(str): Relative to the base URL, relative to the host (it begins with /), or absolute.
    """
    address = _STRAY.sub("%25", address)
    if _SCHEME.match(address.lstrip(" ")):
        return address.lstrip(" ")
    base = urlsplit(base_url)
    if address.startswith("//"):
        return f"{base.scheme}:{address}"
    folder = "" if address.startswith("/") else f"{base.path.rpartition('/')[0]}/"
    return f"{base.scheme}://{base.netloc}{folder}{address}"


def with_query(address: str, query: str, params: Any = None) -> str:
    """Return an address with the query of the base URL added, except parameters that the request sets itself.

    Parameters:
      address(str): Absolute.
      query(str): The query of the base URL, encoded. Empty: the address is returned unchanged.
      params(Any): The parameters of the request, as `requests` takes them.
    """
    if not query:
        return address
    before, mark, fragment = address.partition("#")
    own = {*_names(before.partition("?")[2]), *_names(params)}
    added = "&".join(part for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) not in own)
    if added:
        before += f"{'&' if '?' in before else '?'}{added}"
    return before + mark + fragment


def _names(params: Any) -> Iterator[str]:
    if isinstance(params, (str, bytes)):
        text = params if isinstance(params, str) else params.decode("utf-8", "replace")
        yield from (name for name, _ in parse_qsl(text, keep_blank_values=True))
        return
    with suppress(TypeError, ValueError):  # requests raises for invalid ones later
        yield from map(str, dict(params or {}))


def flaw_of(address: str) -> str:
    """Return why an address would be changed when it is sent; empty if it would not.

    Parameters:
      address(str): Relative or absolute. Its query is checked for control characters only.

    Returns:
      str: The problem and the repair, as the rest of a sentence that begins with the address.
    """
    if _CONTROL.search(address):
        return f"has a control character, which would be dropped: {_REPAIR}"
    before_query = re.split("[?#]", address, maxsplit=1)[0]
    return _flaw_of_host(before_query) or _flaw_of_path(before_query)


def _flaw_of_host(address: str) -> str:
    if _USER.match(address):
        return "names a user or a password: give credentials as auth=(user, password) of the connector"
    if _NO_HOST.match(address):
        return "names a scheme and no host: write http:// or https:// and the host, or a path alone"
    return ""


def _flaw_of_path(address: str) -> str:
    if "\\" in address:
        return f"has a backslash, which some servers read as a slash: {_REPAIR}"
    if any(_is_dots(segment) for segment in address.split("/")):
        return f"has a segment . or .., so another resource would be asked for: {_REPAIR}"
    return ""


def _is_dots(segment: str) -> bool:
    """Whether a client, or a server that ignores `;parameters`, reads a segment as `.` or `..`."""
    return unquote(segment.partition(";")[0]) in _DOTS
