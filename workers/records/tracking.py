"""HasImportStatus: what became of any model's row in the runs, its own table untouched."""

from typing import Any

from peewee import fn

from workers.connections import database
from workers.records.tables import RunItem

#: As long as the column is.
_TYPE_LENGTH = 100


def item_type(model: type[Any]) -> str:
    """Return the name under which rows of `model` are tracked. It is only ever compared, never imported."""
    meta = model._meta
    return (f"{meta.schema}.{meta.table_name}" if meta.schema else str(meta.table_name))[:_TYPE_LENGTH]


def item_types(model: type[Any]) -> tuple[str, str]:
    """Return the names under which rows of `model` may be tracked: the second by items made before schemas counted."""
    return item_type(model), str(model._meta.table_name)


def external_id_of(row: Any, listed_as: str) -> str:
    """Return the external id of a row as it is stored.

    Parameters:
      row(peewee.Model): An Importable, loaded.
      listed_as(str): What the list called it. It counts where the model's method raises for a stored row, as one may
        that was written for what the list brings.
    """
    try:
        return str(row.get_external_id())
    except Exception as error:
        if database.is_away(error):
            raise
        return listed_as


class HasImportStatus:
    """Mix it into a model to ask what the runs did with a row. Marks are made by runs alone."""

    def import_statuses(self) -> list[RunItem]:
        """Return this row's items in all runs, the latest first."""
        mine = RunItem.item_type.in_(item_types(type(self))) & (RunItem.item_id == str(self._pk))  # type: ignore[attr-defined]
        if hasattr(self, "get_external_id"):  # a primary key may have been another row's before
            mine &= fn.LOWER(RunItem.external_id) == str(self.get_external_id()).lower()  # details may respell it
        return list(RunItem.select().where(mine).order_by(RunItem.id.desc()))

    def import_status(self) -> RunItem | None:
        """Return this row's item in the latest run that knew it."""
        return next(iter(self.import_statuses()), None)
