"""Decodes the JSON body of a response, or names the format that the body has instead."""

import json
import re
from typing import Any, NoReturn

import requests

from workers.sources.exact_float import NotANumber, read_float

#: Media types whose body can be JSON all the same, or the HTML error page of a gateway.
_ANYTHING = re.compile(
    r"application/(.*\+|x-)?json|text/(html|plain|(x-)?json)|(application|text)/(x-)?javascript|.*/octet-stream"
)
_JSON_LINES = re.compile(r"(application|text)/(x-)?(ndjson|ldjson|jsonl|jsonlines|json-lines|json-seq|stream\+json)")
_XML = re.compile(r"(application|text)/(.*\+)?xml")
_PAGE = re.compile(rb"<(!doctype\s+)?html", re.IGNORECASE)


def decode(response: requests.Response) -> Any:
    """Decode JSON. `response.json()` is not used: it guesses the charset of a body that is not UTF-8, for minutes.

    Raises:
      NotANumber: It has a number that cannot be used.
      ValueError: It is not JSON.
    """
    try:
        return _loads(response.content)
    except UnicodeDecodeError:
        charset = re.search(r"charset=[\"']?([\w.:-]{1,40})", response.headers.get("Content-Type", ""), re.IGNORECASE)
        try:
            text = response.content.decode(charset[1]) if charset else ""
        except LookupError:  # an unknown charset
            text = ""
        return _loads(text)


def content_type(response: requests.Response) -> str:
    """Return the media type of a response, or why it has none. The header can contain anything."""
    named = response.headers.get("Content-Type")
    if named is None:
        return "no content type"
    return _media_type(named) or "an invalid content type"


def other_format(response: requests.Response) -> str:
    """Name the format of a body that is not JSON; empty if a retry can bring JSON.

    The media type decides, or the text: JSON lines, an XML declaration. An HTML page comes from a gateway, so a retry
    can help; the same is true of an empty body.
    """
    body, media = response.content.lstrip(b"\xef\xbb\xbf \t\r\n"), _media_type_of(response)
    if not body:
        return ""
    if _JSON_LINES.fullmatch(media) or _is_json_lines(body):
        return "JSON lines"
    if _XML.fullmatch(media) or (body.startswith(b"<?xml") and not _PAGE.search(body[:2_000])):
        return "XML"
    return "" if not media or _ANYTHING.fullmatch(media) else media


def _media_type_of(response: requests.Response) -> str:
    return _media_type(response.headers.get("Content-Type", "")).lower()


def _media_type(named: str) -> str:
    found = re.match(r"[\w.+-]{1,30}/[\w.+-]{1,100}(?![^\s;,])", named, re.ASCII)
    return found[0] if found else ""


def _is_json_lines(body: bytes) -> bool:
    """Whether each of the first two lines is a JSON object or list."""
    lines = [line for line in body.split(b"\n", 20) if line.strip()][:2]
    try:
        return len(lines) == 2 and all(isinstance(_loads(line), (dict, list)) for line in lines)
    except (ValueError, RecursionError):
        return False


def _loads(body: bytes | str) -> Any:
    try:
        return json.loads(body, parse_float=read_float, parse_constant=_refuse)
    except (json.JSONDecodeError, UnicodeDecodeError, NotANumber):
        raise
    except ValueError:
        raise NotANumber("a number of too many digits") from None


def _refuse(constant: str) -> NoReturn:
    raise NotANumber(f"{constant}, which JSON does not have: the API should say null")
