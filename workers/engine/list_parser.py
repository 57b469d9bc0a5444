"""Parses a list page with the source's methods: unsaved models, refused and skipped items, next cursor, total."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from workers.connections import database
from workers.errors import PermanentError, Skip
from workers.failures import FailureClass
from workers.records import changed_fields, cursor_text, storable_values
from workers.sources import model_keys
from workers.sources.contracts import ImportSource
from workers.text.error_text import describe, message_of

#: A page of more items is refused: each item becomes a row, and 20 MB of zeros would be ten million.
_MOST_ITEMS = 100_000
#: Longest cursor that is stored, in characters of its JSON: a link is shorter.
_CURSOR_LENGTH = 8_000
_ID_LENGTH = 255
_UNSTORABLE = "it holds a character that no database keeps (a NUL, or half a letter)"
#: Refused and skipped items are recorded under their place on the page, so no other item may have such an id.
_PLACE = re.compile(r"page .*, (item \d+|and what follows)", re.DOTALL)
_LARGEST_TOTAL = 2**63 - 1


@dataclass
class Page:
    """A parsed list page.

    Parameters:
      models(dict[tuple, Model]): External id and key -> unsaved instance; of two with the same, the later one.
      places(dict[tuple, str]): The same -> its place on the page.
      refused(dict[str, str]): Place on the page -> why it cannot become a row.
      skipped(dict[str, str]): Place on the page -> why the source skips it.
      next_cursor(Any): Cursor of the page after this one; None after the last page.
      total(int | None): How many items the list has, if the page states it.
      digest(str): Hash of the items; empty if there are none.
      came(int): How many items it held, refused, skipped and repeated ones included.
    """

    models: dict[tuple[str, str], Any] = field(default_factory=dict)
    places: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    next_cursor: Any = None
    total: int | None = None
    digest: str = ""
    came: int = 0


def read(source: ImportSource, data: Any, cursor: Any) -> Page:
    """Parse a decoded list page with the source's methods. A bad item is refused alone.

    Raises:
      PermanentError: The page as a whole is not what the source expects.
    """
    title = type(source).__name__
    try:
        listed = source.get_list_items(data)
        following = source.next_cursor(data, cursor)
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise _broken(f"the body is not what {title} reads: {describe(error)}") from error
    if not isinstance(listed, Sequence) or isinstance(listed, (str, bytes)):
        raise _broken(f"the body holds no list of items but a {type(listed).__name__}")
    if len(listed) > _MOST_ITEMS:
        raise _broken(
            f"it holds {len(listed):,} items, and {_MOST_ITEMS:,} are the most that are taken at once: "
            f"let {title}.get_list_request ask for smaller pages"
        )
    page = Page(next_cursor=_storable_cursor(title, following), total=_stated_total(source, data), came=len(listed))
    for model in _kinds(source.model):
        changed_fields.prepare(model)
    for position, item in enumerate(listed, start=1):
        _read_item(page, source, item, f"page {cursor_text.short(cursor)}, item {position}")
    page.digest = _digest(listed) if listed else ""
    return page


def _kinds(model: type[Any]) -> Iterator[type[Any]]:
    """Yield a model and its subclasses, which a source's method can return as well."""
    yield model
    for kind in model.__subclasses__():
        yield from _kinds(kind)


def _broken(why: str) -> PermanentError:
    return PermanentError(why, FailureClass.CONTRACT)


def _storable_cursor(title: str, cursor: Any) -> Any:
    """Return a cursor as the run's row will return it: through JSON."""
    try:
        text = json.dumps(cursor, ensure_ascii=False, allow_nan=False)
        if len(text) > _CURSOR_LENGTH:
            raise ValueError(f"it is {len(text):,} characters long, and {_CURSOR_LENGTH:,} can be kept")
        if storable_values.has_unstorable(text) or "\\u0000" in text.replace("\\\\", ""):
            raise ValueError(_UNSTORABLE)
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise _broken(f"{title}.next_cursor returned what cannot be kept as a cursor: {describe(error)}") from None


def _stated_total(source: ImportSource, data: Any) -> int | None:
    if not isinstance(data, Mapping):
        return None
    total = data.get(source.total_key)
    return total if type(total) is int and 0 <= total <= _LARGEST_TOTAL else None


def _read_item(page: Page, source: ImportSource, item: Any, where: str) -> None:
    try:
        model = source.create_model_from_list_item(item)
        if not isinstance(model, source.model):
            raise TypeError(f"create_model_from_list_item returned a {type(model).__name__}")
        external_id = usable_id(model.get_external_id())
    except Skip as skip:
        page.skipped[where] = message_of(skip)
        return
    except _NoId as error:
        page.refused[where] = f"{where} has no usable id: {error}"
        return
    except Exception as error:  # a user's code can raise anything; it refuses this item only
        if database.is_away(error):
            raise  # an outage is not the item's fault
        page.refused[where] = f"{where} cannot become a {source.model.__name__}: {describe(error)}"
        return
    # Two items of one id can be two rows, if several fields make the key: the database decides.
    key = external_id, repr(model_keys.values(model, model_keys.fields(source.model, source.unique_by)))
    page.models.pop(key, None)  # of two, the later one counts, at its own place
    page.models[key], page.places[key] = model, where


class _NoId(ValueError):
    """`get_external_id` returned something that cannot be an id."""


def usable_id(external_id: Any) -> str:
    """Return an id as text.

    Raises:
      ValueError: It cannot be an id, or no database can store it.
    """
    if isinstance(external_id, bool) or not isinstance(external_id, (str, int, UUID)):
        kind = "nothing" if external_id is None else f"a {type(external_id).__name__}"
        raise _NoId(f"it is {kind}; text, a whole number or a UUID can be one")
    try:
        text = str(external_id)
    except ValueError as error:  # a number with thousands of digits
        raise _NoId(str(error)) from None
    if not text.strip():
        raise _NoId("it is empty")
    if len(text) > _ID_LENGTH:
        raise _NoId(f"it has {len(text):,} characters, and {_ID_LENGTH} can be kept")
    if storable_values.has_unstorable(text):
        raise _NoId(_UNSTORABLE)
    if _PLACE.fullmatch(text):
        raise _NoId("it looks like a place on a page, by which refused items are known")
    return text


def _digest(listed: Sequence[Any]) -> str:
    try:
        text = repr(listed)
    except RecursionError:
        text = "nested too deeply"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
