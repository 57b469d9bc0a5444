"""Decoding: the JSON of an answer's body, or what the body is instead."""

import json
import re
from typing import Any, NoReturn

import requests

from workers.sources.exact_float import NotANumber, read_float

#: Media types that may hold JSON whatever they say, or a gateway's page for people.
_ANYTHING = re.compile(
    r"application/(.*\+|x-)?json|text/(html|plain|(x-)?json)|(application|text)/(x-)?javascript|.*/octet-stream"
)
_JSON_LINES = re.compile(r"(application|text)/(x-)?(ndjson|ldjson|jsonl|jsonlines|json-lines|json-seq|stream\+json)")
_XML = re.compile(r"(application|text)/(.*\+)?xml")
_PAGE = re.compile(rb"<(!doctype\s+)?html", re.IGNORECASE)


def decode(response: requests.Response) -> Any:
    """Decode JSON. Not `response.json()`: where a body is not UTF-8 that one guesses, for minutes.

    Raises:
      NotANumber: It holds a number that cannot be used.
      ValueError: It is no JSON.
    """
    try:
        return _loads(response.content)
    except UnicodeDecodeError:
        charset = re.search(r"charset=[\"']?([\w.:-]{1,40})", response.headers.get("Content-Type", ""), re.IGNORECASE)
        try:
            text = response.content.decode(charset[1]) if charset else ""
        except LookupError:  # there is no such charset, or it is none of text
            text = ""
        return _loads(text)


def content_type(response: requests.Response) -> str:
    """Return the media type an answer names, if it is one: a header may hold anything."""
    named = response.headers.get("Content-Type")
    if named is None:
        return "no content type"
    return _media_type(named) or "a content type that is none"


def other_format(response: requests.Response) -> str:
    """Name the format of a body that is no JSON and will not be the next time; empty where the next may be whole.

    Its media type says so, or its text: lines of JSON, an XML declaration. A page for people is a gateway's, and an
    empty body is no format.
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
    """Whether the first two lines are an object or a list each."""
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
