"""Decides which rows a run with --fresh can remove, and copies their keys before the run requests its list."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from peewee import ModelSelect

from workers.connections import database
from workers.errors import ConfigurationError
from workers.records import activation, cursor, existing_rows, model_database, old_rows
from workers.records.import_status import item_type
from workers.records.tables import Removal, RemovalState, Run
from workers.sources import model_keys
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry

#: Keys that are copied in one transaction.
_COPIED = 1_000


# --- what is refused


def refuse(source: ImportSource, tenant: str | None) -> None:
    """Refuse a fresh run if it is not known which rows it may remove.

    Raises:
      ConfigurationError: The source does not allow it, or must declare `fresh_query`; the message has an example.
    """
    title, model = type(source).__name__, source.model.__name__
    if not source.allow_fresh:
        raise ConfigurationError(
            f"The source {source.name} does not allow --fresh: set allow_fresh = True on {title} "
            f"if rows that are no longer in its list may be removed"
        )
    if why := _why_rows_are_shared(source, tenant):
        raise ConfigurationError(
            f"The source {source.name} cannot be run with --fresh: {why}, so {title} must say which of them a run "
            f"may remove. Write, for example: def fresh_query(self, run): "
            f"return {model}.select().where({model}.shop == run.tenant)"
        )


def _why_rows_are_shared(source: ImportSource, tenant: str | None) -> str:
    """Return why a source's table can hold rows of others that no `fresh_query` excludes; empty if it cannot."""
    kind, table = type(source), source.model._meta.table_name
    if kind.fresh_query is not ImportSource.fresh_query:
        return ""
    if tenant is not None or kind.get_connector is not ImportSource.get_connector:
        return f"the table {table!r} holds rows of several tenants"
    others = [name for name in sources_of_table(source) if name != source.name]
    return f"the table {table!r} holds rows of {' and '.join([source.name, *others])}" if others else ""


def sources_of_table(source: ImportSource) -> list[str]:
    """Return the names of the sources whose models have the same table, this one included."""
    return [name for name, other in get_registry().items() if _table_of(other.model) == _table_of(source.model)]


def _table_of(model: Any) -> tuple[Any, str | None, str]:
    """Return the table of a model: its database, its schema and its name."""
    place = model._meta.database
    return "ours" if database.is_ours(model) else id(getattr(place, "obj", place)), model._meta.schema, item_type(model)


def other_active(run: Run, source: ImportSource) -> Run | None:
    """Return another run that is running or paused, and writes to the same table."""
    return next((other for other in activation.active_of(sources_of_table(source)) if other.id != run.id), None)


# --- the rows


@dataclass(frozen=True)
class FreshRows:
    """The rows that a run may remove, as its source's `fresh_query` names them.

    Parameters:
      query(ModelSelect): As `fresh_query` returned it.
      model(type[peewee.Model]): The model of the rows.
      fields(Sequence[Field]): Those of `unique_by`.
    """

    query: Any
    model: Any
    fields: Sequence[Any]

    @classmethod
    def of(cls, source: ImportSource, run: Run) -> Self:
        """Call the `fresh_query` of a source.

        Raises:
          ConfigurationError: It returns something else than such a query.
        """
        query: Any = source.fresh_query(run)
        title = f"{type(source).__name__}.fresh_query"
        if not isinstance(query, ModelSelect) or item_type(query.model) != item_type(source.model):
            raise ConfigurationError(f"{title} must return a select of {source.model.__name__}, not {query!r:.80}")
        if (query._limit, query._offset) != (None, None):  # type: ignore[attr-defined]
            raise ConfigurationError(f"{title} must have no limit and no offset: it names all that a run may remove")
        return cls(query, query.model, model_keys.fields(query.model, source.unique_by))

    @property
    def key(self) -> Any:
        """The primary key."""
        return self.model._meta.primary_key

    def after(self, last: Any, limit: int) -> list[tuple[Any, ...]]:
        """Return the next rows in the order of their primary keys: the key, and the values of `unique_by`."""
        some = self.query.select(self.key, *self.fields).order_by(self.key).limit(limit)
        return list((some if last is None else some.where(self.key > model_keys.from_text(self.model, last))).tuples())

    def delete(self, copied: Mapping[str, str], still_old: Callable[[], Collection[str]]) -> int:
        """Within a transaction: delete those of the rows that have not changed.

        Parameters:
          copied(Mapping[str, str]): Primary key -> `row_key`, as they were copied.
          still_old(Callable): Returns the primary keys that are old rows now: another run's list can have brought some.

        Returns:
          int: How many.
        """
        keys = [model_keys.from_text(self.model, key) for key in copied]
        existing_rows.locked_keys(self.model, keys, ())  # else a row could change between the query and the deletion
        wanted = self.key.in_([model_keys.from_text(self.model, key) for key in still_old()])
        current = self.query.select(self.key, *self.fields).where(wanted).tuples()
        unchanged = {key for key, *values in current if copied.get(model_keys.text(key)) == row_key(values)}
        count: int = self.model.delete().where(self.key.in_(list(unchanged))).execute() if unchanged else 0
        return count


def row_key(values: Iterable[Any]) -> str:
    """Return the values of `unique_by` of a row, as text that can be compared."""
    return json.dumps([None if value is None else str(value) for value in values])


# --- before the list, and while it is read


def begin(run: Run, source: ImportSource, lease_seconds: float) -> bool:
    """Before a run requests its first list page: if it is fresh, copy the keys of the rows that it may remove.

    Parameters:
      run(Run): From `cursor.begin_page`; its lease is extended with each chunk.

    Returns:
      bool: Whether the page is still ours.

    Raises:
      ConfigurationError: As `refuse`: the source can have changed since the run was created.
    """
    if not run.options.get("fresh"):
        return True
    refuse(source, run.tenant)
    removal = old_rows.begin(run)
    if removal.state != RemovalState.COPYING:
        return True
    if other := other_active(run, source):
        old_rows.give_up(run.id, f"run {other.id} of {other.source}, on the same table, was active when this one began")
        return True
    return _copy(run, removal, FreshRows.of(source, run), lease_seconds)


def _copy(run: Run, removal: Removal, rows: FreshRows, lease_seconds: float) -> bool:
    last: Any = removal.position
    with model_database.connected(rows.model):
        while True:
            some = rows.after(last, _COPIED)
            with cursor.page_commit(run) as ours:
                if not ours:
                    return False
                if some:
                    last = model_keys.text(some[-1][0])
                    old_rows.add(run.id, ((model_keys.text(key), row_key(values)) for key, *values in some), last)
                else:
                    old_rows.copied(run.id)
                cursor.extend_page(run, lease_seconds)
            if not some:
                return True


def seen(source: ImportSource, item_ids: Iterable[str | None]) -> None:
    """Within `cursor.page_commit`: record that a list has brought these rows, so that no fresh run removes them."""
    holders = old_rows.holders(sources_of_table(source))
    if holders:
        old_rows.seen(holders, [item_id for item_id in item_ids if item_id is not None])
