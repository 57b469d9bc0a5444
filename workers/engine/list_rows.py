"""Saves the rows of a list page (upsert); says which row each item has, what changed, and which items are refused."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from workers.engine import list_parser
from workers.engine.list_parser import Page
from workers.records import row_batch, upserts
from workers.records.import_status import external_id_of
from workers.records.row_batch import Refusal
from workers.records.upserts import Change, Stored
from workers.sources import model_keys
from workers.sources.contracts import ImportSource

#: A row can refer to one that comes later on its page: how often refused rows are tried once more.
_PASSES = 10

#: What a page's rows are known by: external id, and the key of the row.
_Key = tuple[str, str]


@dataclass
class Listed:
    """The saved rows and the refused items of a page.

    Parameters:
      rows(dict[str, str]): External id, as the database stores it -> primary key as text.
      refused(dict[str, str]): External id, or place on the page -> why there is no row.
    """

    rows: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    _changes: dict[str, Change] = field(default_factory=dict)
    _places: dict[str, str] = field(default_factory=dict)

    @property
    def changes(self) -> Counter[Change]:
        """How many rows were created, updated and unchanged."""
        return Counter(self._changes.values())

    @property
    def known(self) -> list[str]:
        """The primary keys, as text, of rows that existed before."""
        return [key for key, change in self._changes.items() if change is not Change.CREATED]

    def add(self, place: str, row: "_Row") -> None:
        """Add a saved row; refuse the item if another row has its id.

        Parameters:
          place(str): The item's place on the page.
        """
        if self.rows.setdefault(row.external_id, row.key) != row.key:
            self.refused[place] = _same_id(place, row.external_id)
            return
        self._places[row.external_id] = place
        if self._changes.get(row.key) is not Change.CREATED:
            self._changes[row.key] = row.change

    def refuse(self, external_ids: Iterable[str]) -> None:
        """Refuse items whose ids belong to other rows since an earlier page."""
        for external_id in external_ids:
            del self.rows[external_id]
            place = self._places[external_id]
            self.refused[place] = _same_id(place, external_id)


def _same_id(place: str, external_id: str) -> str:
    return f"{place} has the id {external_id!r} of another row: let get_external_id return different ids for the two"


@dataclass(frozen=True)
class _Row:
    """A row that was saved: its external id as it is stored, its primary key as text, what was done to it."""

    external_id: str
    key: str
    change: Change


def save_page(source: ImportSource, read: Page) -> Listed:
    """Save a page's rows together or, where that fails, one by one: one that cannot be saved is refused alone.

    *Warning:* a constraint that is checked at the commit is not met here.
    """
    return _save(source, read, row_batch.save_together)


def save_row_by_row(source: ImportSource, read: Page) -> Listed:
    """As `save_page`, each row in a savepoint or, outside of a transaction, in a transaction of its own."""
    return _save(source, read, row_batch.save_each)


def _save(source: ImportSource, read: Page, save_rows: Callable[..., list[row_batch.Result[_Key, _Row]]]) -> Listed:
    listed = Listed()
    if not read.models:
        return listed
    place = source.model._meta.database
    for key, row in save_rows(place, list(read.models), partial(_upsert, source, read.models), passes=_PASSES):
        if isinstance(row, Refusal):
            listed.refused[key[0]] = row.reason
        else:
            listed.add(read.places[key], row)
    return listed


def _upsert(source: ImportSource, models: Mapping[_Key, Any], keys: Sequence[_Key]) -> list[_Row]:
    stored = upserts.upsert(source.model, [models[key] for key in keys], source.unique_by)
    return [_checked(source.model, listed_as, row) for (listed_as, _), row in zip(keys, stored, strict=True)]


def _checked(model: type[Any], listed_as: str, stored: Stored) -> _Row:
    """Return the external id and the key that an item stores of its row.

    Parameters:
      listed_as(str): Its external id, as the list gave it.

    Raises:
      ValueError: An item cannot point at it.
    """
    external_id = list_parser.usable_id(external_id_of(stored.row, listed_as))
    key = model_keys.text(stored.row._pk)
    if model_keys.from_text(model, key) != stored.row._pk:
        raise ValueError(f"its primary key {stored.row._pk!r:.80} cannot be found again by its text")
    return _Row(external_id, key, stored.change)
