"""Detects an endless list by digests of the pages read so far: a cursor or a page came twice, or too many items."""

import hashlib
import json
from typing import Any

from workers.errors import PermanentError
from workers.failures import FailureClass
from workers.records.cursor_text import short
from workers.records.tables import ListPage, Run
from workers.sources.contracts import ImportSource

#: How many of the last pages a new page is compared with.
_KEPT = 1_000


def add(run: Run, source: ImportSource, cursor: Any, *, came: int, digest: str, next_cursor: Any) -> dict[str, int]:
    """Within the transaction that records a page: record its digest, and refuse an endless list.

    Parameters:
      cursor(Any): The cursor of the page.
      came(int): The number of its items.
      digest(str): A digest of its items; empty if it has none.
      next_cursor(Any): The cursor of the next page; None after the last one.

    Returns:
      dict[str, int]: State for the next page: the number of pages and items so far, and how many of the last pages had
        no item.

    Raises:
      PermanentError: The page's items, or the next cursor, came before; too many pages had no item; or the list has
        too many items.
    """
    kept = {
        "pages": run.metadata.get("pages", 0) + 1,
        "came": run.metadata.get("came", 0) + came,
        "empty_pages": 0 if came else run.metadata.get("empty_pages", 0) + 1,
    }
    _refuse_too_many(source, kept["came"])
    if next_cursor is None:
        forget(run.id)
        return kept
    _note(run.id, type(source).__name__, kept["pages"], digest, (cursor, next_cursor))
    _refuse_emptiness(source, kept["empty_pages"])
    return kept


def _note(run_id: int, title: str, number: int, digest: str, cursors: tuple[Any, Any]) -> None:
    """Record a page; refuse it if it came before, or if its next cursor came before."""
    cursor, next_cursor = cursors
    its = ListPage.run_id == run_id
    came_before = bool(digest) and _is_known(its, ListPage.digest == digest)
    ListPage.insert(run_id=run_id, cursor=_digest(cursor), digest=digest or None, number=number).execute()
    if _is_known(its, ListPage.cursor == _digest(next_cursor)):
        raise _endless(f"it names {_named(next_cursor, cursor)} as the next one: does {title}.next_cursor advance?")
    if came_before:
        raise _endless(
            f"its items came before, on another page: does {title}.get_list_request ask for the page its cursor names?"
        )
    if number % 100 == 0:
        ListPage.delete().where(its, ListPage.number <= number - _KEPT).execute()


def _refuse_too_many(source: ImportSource, came: int) -> None:
    title = type(source).__name__
    if came > source.max_items:
        raise _endless(
            f"the list brought more than {source.max_items:,} items: does {title}.next_cursor ever return None? "
            f"Set max_items on {title} if the list is that long"
        )


def _refuse_emptiness(source: ImportSource, pages: int) -> None:
    title = type(source).__name__
    if pages > source.max_empty_pages:
        raise _endless(
            f"{pages:,} list pages in a row had no item: does {title}.next_cursor ever return None? "
            f"Set max_empty_pages on {title} if that many may be empty"
        )


def forget(run_id: int) -> None:
    """Delete the digests of a run: its list has ended, or is read again from the start."""
    ListPage.delete().where(ListPage.run_id == run_id).execute()


def _is_known(*conditions: Any) -> bool:
    return bool(ListPage.select().where(*conditions).limit(1).exists())


def _named(cursor: Any, asked_with: Any) -> str:
    return "itself" if cursor == asked_with else f"page {short(cursor)}, which was read before,"


def _digest(cursor: Any) -> str:
    return hashlib.sha256(json.dumps(cursor, sort_keys=True).encode("utf-8", "replace")).hexdigest()[:16]


def _endless(why: str) -> PermanentError:
    return PermanentError(why, FailureClass.CONTRACT)
