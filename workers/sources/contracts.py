"""The two interfaces that a user implements: Importable for a Peewee model, ImportSource for a list of an API."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable
from uuid import UUID

import requests

from workers.sources.connector import Connector
from workers.sources.source_run import SourceRun


@runtime_checkable
class Importable(Protocol):
    """A Peewee model whose rows are filled from the API. It needs these three methods, and no base class but Model."""

    def get_external_id(self) -> str | int | UUID | None:
        """Return the id of this row in the API.

        Returns:
          str | int | UUID | None: At most 255 characters as text. An item with None, or an empty id, fails.
        """
        ...

    def get_api_detail_request(self) -> requests.Request | None:
        """Return the request for this row's details, or None if the list item was already complete."""
        ...

    def populate_from_api_response(self, data: Any) -> None:
        """Set fields from the decoded response; Sluice saves the row.

        Parameters:
          data(Any): The decoded JSON body.

        Raises:
          Skip: The row is not wanted: its item is recorded as skipped, with the reason.
        """
        ...


class ImportSource(ABC):
    """A list of things to import: which API has it, how it is read, and which model its items become.

    Attributes:
      name(str): The name of the source: lower-case letters, digits, - and _; at most 60 characters.
      model(type[peewee.Model]): The model of the items; an Importable.
      connector(Connector): The API. See also `get_connector`.
      unique_by(str | tuple[str, ...]): The unique field of the model, or the fields that are unique together, by which
        an existing row is found.
      per_page(int): The number of items of one list page, as `get_list_request` asks for it.
      lanes(int): How many detail requests can be in flight at the same time.
      allow_fresh(bool): Whether a run with `--fresh` is allowed, which removes rows that are no longer in the list: see
        `fresh_query`.
      max_items(int): A list with more items is taken for endless, and fails the run. Skipped, refused and duplicate
        items count, too.
      first_cursor(Any): The cursor of the first page: any JSON value.
      max_empty_pages(int): A list with more empty pages in a row is taken for endless, and fails the run.
      partial_list(bool): Whether a page that cannot be read ends the list instead of failing the run. Earlier pages are
        imported, and the missing pages are one failed item.
      total_key(str | None): The key in a page for the number of items of the list; None: the page has no such number.
      schedule(str | None): When the source runs automatically: five cron fields, as in "0 */3 * * *"; None: only when a
        person starts it. A schedule that a person has changed since has precedence.
      timezone(str): The timezone of the schedule, as "Europe/Paris".
      catch_up(str): Which of the slots that passed while no scheduler ran are run later: "latest", "none" or "all".
    """

    name: ClassVar[str]
    model: ClassVar[type[Any]]
    connector: ClassVar[Connector]
    unique_by: ClassVar[str | tuple[str, ...]] = "external_id"
    per_page: ClassVar[int] = 100
    lanes: ClassVar[int] = 16
    allow_fresh: ClassVar[bool] = False
    max_items: ClassVar[int] = 5_000_000
    first_cursor: ClassVar[Any] = 1
    max_empty_pages: ClassVar[int] = 1_000
    partial_list: ClassVar[bool] = False
    total_key: ClassVar[str | None] = "total"
    schedule: ClassVar[str | None] = None
    timezone: ClassVar[str] = "UTC"
    catch_up: ClassVar[str] = "latest"

    def get_connector(self, run: SourceRun) -> Connector:
        """Return the connector of this run. Override it if each tenant (`run.tenant`) has a connector of its own."""
        return self.connector

    def fresh_query(self, run: Any) -> Any:
        """Return a query for the rows that a run with `--fresh` can remove; by default, all rows of the model.

        At the end of the run, those of these rows are deleted that existed when it began and that are not in its list.
        Override it if the table also has rows of other tenants, of other sources, or made by people.

        Parameters:
          run(Run): The run; `run.tenant` is its tenant.

        Returns:
          peewee.ModelSelect: A select of the source's model, without a limit.
        """
        return self.model.select()

    @abstractmethod
    def get_list_request(self, cursor: Any, per_page: int) -> requests.Request:
        """Return the request for one page of the list.

        Parameters:
          cursor(Any): `first_cursor` for the first page, then what `next_cursor` returned.
          per_page(int): The `per_page` of the source.

        Returns:
          requests.Request: A relative URL is joined to the base URL of the connector.
        """

    def get_list_items(self, data: Any) -> Sequence[Mapping[str, Any]]:
        """Return the items of a decoded page; by default, the value of `data`."""
        items: Sequence[Mapping[str, Any]] = data["data"]
        return items

    def next_cursor(self, data: Any, cursor: Any) -> Any:
        """Return the cursor of the next page (any JSON value), or None after the last page."""
        return cursor + 1 if data.get("next_page_url") else None

    @abstractmethod
    def create_model_from_list_item(self, item: Mapping[str, Any]) -> Any:
        """Return an unsaved instance of the model, with the fields that the list item has.

        Raises:
          Skip: The item is not wanted: it is recorded as skipped, with the reason.
        """
