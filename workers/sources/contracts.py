"""What a user implements: Importable, on a model, and ImportSource. At most five methods each."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import requests

from workers.sources.connector import Connector


@runtime_checkable
class Importable(Protocol):
    """A Peewee model that the API can fill, known by its shape: inherit from nothing, write these three."""

    def get_external_id(self) -> str | int | None:
        """Return the id the API knows this row by."""
        ...

    def get_api_detail_request(self) -> requests.Request | None:
        """Return the request for this row's details, or None where the list item was already complete."""
        ...

    def populate_from_api_response(self, data: Any) -> None:
        """Set fields from the decoded answer; the package saves them.

        Raises:
          Skip: This row is not wanted; it ends as skipped with the reason.
        """
        ...


class ImportSource(ABC):
    """One list of things to import: which model they become, which API has them, how its list is read.

    Attributes:
      name(str): How people call it; lower case, digits, - and _.
      model(type[peewee.Model]): What each item becomes; an Importable.
      connector(Connector): The API.
      unique_by(str | tuple[str, ...]): The model's unique field, or the fields that are unique together, that tell
        whether a row is already there.
      per_page(int): How many items to ask for at once.
      lanes(int): How many strands may fetch details at the same time.
      allow_fresh(bool): Whether a run may remove rows that are no longer in the list: see `fresh_query`.
      max_items(int): The list is taken for endless when more items came: skipped, refused and doubled ones count, too.
      first_cursor(Any): What the first page is asked for with: anything JSON can hold.
      max_empty_pages(int): The list is taken for endless when so many pages in a row had no item.
      partial_list(bool): Whether a page that cannot be had ends the list instead of the run: what came until then is
        imported, and the page is a failed item of the run.
      total_key(str | None): Where a page says how many items the list has; None: it does not, or counts otherwise.
      schedule(str | None): When it runs by itself: five cron fields, as in "0 */3 * * *"; None: when somebody asks.
        People may change it at run time; what they set wins.
      timezone(str): Where the schedule's clock hangs: a name like "Europe/Paris".
      catch_up(str): What becomes of slots that passed while no scheduler ran: "latest", "none" or "all" of them run.
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

    def get_connector(self, run: Any) -> Connector:
        """Return the API for this run; override where each tenant (`run.tenant`) has its own."""
        return self.connector

    def fresh_query(self, run: Any) -> Any:
        """Return a select of the model's rows that a fresh run may remove; by default, all of them.

        At the end of a run with `--fresh`, those of these rows are deleted that were there when it began and that its
        list did not bring. Override it where the table has rows of others: of other tenants, other sources, people.

        Parameters:
          run(Run): The run; `run.tenant` says for whom it is.

        Returns:
          peewee.ModelSelect: Of the source's model, without a limit.
        """
        return self.model.select()

    @abstractmethod
    def get_list_request(self, cursor: Any, per_page: int) -> requests.Request:
        """Return the request for one page of the list, `first_cursor` being that of the first one.

        A relative URL joins the connector's.
        """

    def get_list_items(self, data: Any) -> Sequence[Mapping[str, Any]]:
        """Return the items of a decoded page."""
        items: Sequence[Mapping[str, Any]] = data["data"]
        return items

    def next_cursor(self, data: Any, cursor: Any) -> Any:
        """Return the next page's cursor (anything JSON can hold), or None after the last page."""
        return cursor + 1 if data.get("next_page_url") else None

    @abstractmethod
    def create_model_from_list_item(self, item: Mapping[str, Any]) -> Any:
        """Return an unsaved model instance with the fields that the list knows."""
