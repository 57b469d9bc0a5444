"""A list page, read: the rows it becomes, the items it refuses and why, and the cursor after it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workers import saving
from workers.contracts import ImportSource
from workers.errors import PermanentError, Skip


@dataclass
class Page:
    """What a decoded list page came to.

    Parameters:
      models(dict[str, Model]): External id -> unsaved instance.
      refused(dict[str, str]): Where it stands on the page -> why it cannot become a row.
      skipped(dict[str, str]): Where it stands on the page -> why the source does not want it.
      next_cursor(Any): The page after this one, or None.
    """

    models: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    next_cursor: Any = None


def read(source: ImportSource, data: Any, cursor: Any) -> Page:
    """Read a decoded list page with the source's methods. One bad item is refused alone.

    Raises:
      PermanentError: The page as a whole is not what the source expects.
    """
    try:
        found = source.get_list_items(data)
        page = Page(next_cursor=source.next_cursor(data, cursor))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise PermanentError(
            f"the body is not what {type(source).__name__} reads: {describe(error)}", "contract"
        ) from error
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
        raise PermanentError(f"the body holds no list of items but a {type(found).__name__}", "contract")
    if page.next_cursor == cursor:
        raise PermanentError("the page names itself as the next one", "contract")
    saving.prepare(source.model)
    for position, item in enumerate(found, start=1):
        _read_item(page, source, item, f"page {_short(cursor)}, item {position}")
    return page


def _read_item(page: Page, source: ImportSource, item: Any, where: str) -> None:
    try:
        with saving.given_fields_only():
            model = source.create_model_from_list_item(item)
        external_id = model.get_external_id()
    except Skip as skip:
        page.skipped[where] = str(skip)
        return
    except Exception as error:  # whatever a user's code raises, it refuses this item only
        page.refused[where] = f"{where} cannot become a {source.model.__name__}: {describe(error)}"
        return
    if external_id is None or not 0 < len(str(external_id)) <= 255:
        page.refused[where] = f"{where} has no usable id: {str(external_id)[:40]!r}"
    else:
        page.models[str(external_id)] = model


def _short(cursor: Any) -> str:
    """Return a cursor as it can stand in an id: a long one as a digest, for cursors often share their beginning."""
    text = str(cursor)
    return (
        text
        if len(text) <= 60 and text.isprintable()
        else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    )


def describe(error: BaseException) -> str:
    """Return an exception's type and the first line of its text, cut to a length that can be stored."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
