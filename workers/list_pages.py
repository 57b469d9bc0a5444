"""The pages that a run has read of its list, by digest: a cursor or a page that comes again makes the list endless."""

import hashlib
import json
from typing import Any

from workers.contracts import ImportSource
from workers.errors import PermanentError
from workers.failures import FailureClass
from workers.page import Page, short
from workers.tables import ListPage, Run

#: So many pages back a repetition is found.
_KEPT = 1_000


def add(run: Run, source: ImportSource, cursor: Any, read: Page) -> dict[str, int]:
    """Within the transaction that records a page: note it, and refuse a list that goes in a circle, or never ends.

    Parameters:
      cursor(Any): What the page was asked for with.

    Returns:
      dict[str, int]: What is to be known of the list at its next page.

    Raises:
      PermanentError: The page's items, or the next page's cursor, came before; too many pages had no item, or the
        list brought too many.
    """
    kept = {
        "pages": run.metadata.get("pages", 0) + 1,
        "came": run.metadata.get("came", 0) + read.came,
        "empty_pages": 0 if read.came else run.metadata.get("empty_pages", 0) + 1,
    }
    title = type(source).__name__
    if kept["came"] > source.max_items:
        raise _endless(
            f"the list brought more than {source.max_items:,} items: does {title}.next_cursor ever return None? "
            f"Set max_items on {title} if the list is that long"
        )
    if read.next_cursor is None:
        forget(run.id)
        return kept
    its = ListPage.run_id == run.id
    came_before = bool(read.digest) and _is_known(its, ListPage.digest == read.digest)
    ListPage.insert(run_id=run.id, cursor=_digest(cursor), digest=read.digest or None, number=kept["pages"]).execute()
    if _is_known(its, ListPage.cursor == _digest(read.next_cursor)):
        raise _endless(
            f"it names {_named(read.next_cursor, cursor)} as the next one: does {title}.next_cursor advance?"
        )
    if came_before:
        raise _endless(
            f"its items came before, on another page: does {title}.get_list_request ask for the page its cursor names?"
        )
    if kept["empty_pages"] > source.max_empty_pages:
        raise _endless(
            f"{kept['empty_pages']:,} list pages in a row had no item: does {title}.next_cursor ever return None? "
            f"Set max_empty_pages on {title} if that many may be empty"
        )
    if kept["pages"] % 100 == 0:
        ListPage.delete().where(its, ListPage.number <= kept["pages"] - _KEPT).execute()
    return kept


def forget(run_id: int) -> None:
    """Forget the pages of a run: its list has ended, or is read from the start."""
    ListPage.delete().where(ListPage.run_id == run_id).execute()


def _is_known(*conditions: Any) -> bool:
    return bool(ListPage.select().where(*conditions).limit(1).exists())


def _named(cursor: Any, asked_with: Any) -> str:
    return "itself" if cursor == asked_with else f"page {short(cursor)}, which was read before,"


def _digest(cursor: Any) -> str:
    return hashlib.sha256(json.dumps(cursor, sort_keys=True).encode("utf-8", "replace")).hexdigest()[:16]


def _endless(why: str) -> PermanentError:
    return PermanentError(why, FailureClass.CONTRACT)
