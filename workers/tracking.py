"""HasImportStatus: what became of any model's row in the runs, its own table untouched."""

from typing import Any

from workers import database
from workers.tables import RunItem


def item_type(model: type[Any]) -> str:
    """Return the name under which rows of `model` are tracked. It is only ever compared, never imported."""
    return str(model._meta.table_name)


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
        mine = (RunItem.item_type == item_type(type(self))) & (RunItem.item_id == str(self._pk))  # type: ignore[attr-defined]
        if hasattr(self, "get_external_id"):  # a primary key may have been another row's before
            mine &= RunItem.external_id == str(self.get_external_id())
        return list(RunItem.select().where(mine).order_by(RunItem.id.desc()))

    def import_status(self) -> RunItem | None:
        """Return this row's item in the latest run that knew it."""
        return next(iter(self.import_statuses()), None)
