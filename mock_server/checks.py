"""Check every value of a request before it is used."""

import json
import re
from typing import Any

from flask import Request
from werkzeug.exceptions import UnprocessableEntity

DEFAULT_PER_PAGE = 10
MAX_PER_PAGE = 100
MAX_PAGE = 1_000_000_000
MAX_NAME_CHARACTERS = 200
MAX_DESCRIPTION_CHARACTERS = 5000
MAX_PRICE = 1_000_000_000

_ID = re.compile(r"[1-9][0-9]{0,9}")
_NUMBER = re.compile(r"[0-9]{1,10}")


def page_asked(request: Request) -> tuple[int, int]:
    """Return the page and the page size a list request asks for; a size above 100 becomes 100.

    Raises:
      UnprocessableEntity: A number is none, or out of range.
    """
    page = _positive(request, "page", 1)
    if page > MAX_PAGE:
        raise UnprocessableEntity(f"page is too large: give 1 to {MAX_PAGE}")
    return page, min(_positive(request, "perPage", DEFAULT_PER_PAGE), MAX_PER_PAGE)


def _positive(request: Request, name: str, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or int(text) < 1:
        raise UnprocessableEntity(f"{name} must be a whole number from 1 up, such as {name}={default}")
    return int(text)


def item_id_asked(text: str) -> int | None:
    """Return the id a path names, or None if no item can have it."""
    return int(text) if _ID.fullmatch(text) else None


def changes_asked(request: Request, item_id: int) -> dict[str, Any]:
    """Return the fields a PUT sets: any of name, description and price.

    Parameters:
      request: The request; its body's size has been limited.
      item_id: The id of its path, which an id in the body must repeat.

    Raises:
      UnprocessableEntity: The body is no JSON object, or a field has the wrong type, length or name.
    """
    body = _json_object(request)
    if body.pop("id", item_id) != item_id:
        raise UnprocessableEntity("id differs from the path's: leave it out")
    if not body:
        raise UnprocessableEntity("nothing to change: send name, description or price")
    for name, value in body.items():
        _check_field(name, value)
    return body


def _json_object(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise UnprocessableEntity('the body is not JSON: send an object such as {"price": 9.5}') from None
    if not isinstance(body, dict):
        raise UnprocessableEntity('the body is not an object: send one such as {"price": 9.5}')
    return body


def _check_field(name: str, value: object) -> None:
    match name:
        case "name":
            good = isinstance(value, str) and 1 <= len(value) <= MAX_NAME_CHARACTERS
            wanted = f"a text of 1 to {MAX_NAME_CHARACTERS} characters"
        case "description":
            good = isinstance(value, str) and len(value) <= MAX_DESCRIPTION_CHARACTERS
            wanted = f"a text of at most {MAX_DESCRIPTION_CHARACTERS} characters"
        case "price":
            # A bool is an int to Python. NaN fails every comparison, and so this one.
            good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_PRICE
            wanted = f"a number from 0 to {MAX_PRICE}"
        case _:
            raise UnprocessableEntity("a field is unknown: send name, description or price")
    if not good:
        raise UnprocessableEntity(f"{name} must be {wanted}")
