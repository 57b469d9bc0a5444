"""A list page, read: the rows it becomes, the items it refuses and why, the cursor after it, the total it states."""

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

#: A page of more items is refused whole: each is a row of its own, and 20 MB of zeros would be ten million.
_MOST_ITEMS = 100_000
#: Longest cursor that is kept, in characters of its JSON: a link is shorter.
_CURSOR_LENGTH = 8_000
_ID_LENGTH = 255
_UNSTORABLE = "it holds a character that no database keeps (a NUL, or half a letter)"
#: What is refused or skipped is kept under its place on a page, so no item may have such an id.
_PLACE = re.compile(r"page .*, (item \d+|and what follows)", re.DOTALL)
_LARGEST_TOTAL = 2**63 - 1


@dataclass
class Page:
    """What a decoded list page came to.

    Parameters:
      models(dict[tuple, Model]): External id and key -> unsaved instance; of two with the same the later.
      places(dict[tuple, str]): The same -> where it stands on the page.
      refused(dict[str, str]): Where it stands on the page -> why it cannot become a row.
      skipped(dict[str, str]): Where it stands on the page -> why the source does not want it.
      next_cursor(Any): The page after this one, or None.
      total(int | None): How many items the list has, if the page says it.
      digest(str): The same for the same items; empty where it has none.
      came(int): How many items it held, the refused, skipped and doubled ones included.
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
    """Read a decoded list page with the source's methods. One bad item is refused alone.

    Raises:
      PermanentError: The page as a whole is not what the source expects.
    """
    title = type(source).__name__
    try:
        found = source.get_list_items(data)
        following = source.next_cursor(data, cursor)
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise _broken(f"the body is not what {title} reads: {describe(error)}") from error
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
        raise _broken(f"the body holds no list of items but a {type(found).__name__}")
    if len(found) > _MOST_ITEMS:
        raise _broken(
            f"it holds {len(found):,} items, and {_MOST_ITEMS:,} are the most that are taken at once: "
            f"let {title}.get_list_request ask for smaller pages"
        )
    page = Page(next_cursor=_storable_cursor(title, following), total=_stated_total(source, data), came=len(found))
    for model in _kinds(source.model):
        changed_fields.prepare(model)
    for position, item in enumerate(found, start=1):
        _read_item(page, source, item, f"page {cursor_text.short(cursor)}, item {position}")
    page.digest = _digest(found) if found else ""
    return page


def _kinds(model: type[Any]) -> Iterator[type[Any]]:
    """Yield a model and those made of it, which a source's method may return as well."""
    yield model
    for kind in model.__subclasses__():
        yield from _kinds(kind)


def _broken(why: str) -> PermanentError:
    return PermanentError(why, FailureClass.CONTRACT)


def _storable_cursor(title: str, cursor: Any) -> Any:
    """Return a cursor as it will come back from the run's row."""
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
    except Exception as error:  # whatever a user's code raises, it refuses this item only
        if database.is_away(error):
            raise  # which is nothing to blame the item for
        page.refused[where] = f"{where} cannot become a {source.model.__name__}: {describe(error)}"
        return
    # Two of one id may be two rows, where several fields make the key: the database decides.
    key = external_id, repr(model_keys.values(model, model_keys.fields(source.model, source.unique_by)))
    page.models.pop(key, None)  # of two, the later counts, in its place
    page.models[key], page.places[key] = model, where


class _NoId(ValueError):
    """What `get_external_id` returned is no id."""


def usable_id(external_id: Any) -> str:
    """Return an id as text.

    Raises:
      ValueError: It is none, or no database can keep it.
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


def _digest(found: Sequence[Any]) -> str:
    try:
        text = repr(found)
    except RecursionError:
        text = "nested too deeply"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
