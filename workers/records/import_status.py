"""Finds the items of a model's row in all runs, without a column in the model's own table."""

from typing import Any

from peewee import fn

from workers.connections import database
from workers.records.tables import RunItem

#: The length of the column.
_TYPE_LENGTH = 100


def item_type(model: type[Any]) -> str:
    """Return the name under which items refer to rows of `model`: its table. It is compared, never imported."""
    meta = model._meta
    return (f"{meta.schema}.{meta.table_name}" if meta.schema else str(meta.table_name))[:_TYPE_LENGTH]


def item_types(model: type[Any]) -> tuple[str, str]:
    """Return the names under which items can refer to rows of `model`. Old items use the second, without the schema."""
    return item_type(model), str(model._meta.table_name)


def external_id_of(row: Any, listed_as: str) -> str:
    """Return the external id of a stored row.

    Parameters:
      row(peewee.Model): An Importable, loaded.
      listed_as(str): Its external id in the list; returned if the model's method raises for a stored row.
    """
    try:
        return str(row.get_external_id())
    except Exception as error:
        if database.is_away(error):
            raise
        return listed_as


class HasImportStatus:
    """A mixin for a model: its rows return their items in the runs. Only runs change the items."""

    def import_statuses(self) -> list[RunItem]:
        """Return this row's items in all runs, the latest first."""
        mine = RunItem.item_type.in_(item_types(type(self))) & (RunItem.item_id == str(self._pk))  # type: ignore[attr-defined]
        if hasattr(self, "get_external_id"):  # a primary key can have belonged to another row before
            mine &= (
                fn.LOWER(RunItem.external_id) == str(self.get_external_id()).lower()
            )  # a detail response can change its spelling
        return list(RunItem.select().where(mine).order_by(RunItem.id.desc()))

    def import_status(self) -> RunItem | None:
        """Return this row's item in the latest run that had one; None if no run had."""
        return next(iter(self.import_statuses()), None)
