"""Checks before a run begins that the table of its source exists and has a unique index on its key."""

from collections.abc import Iterable

from peewee import SQL, CommaNodeList, Entity, Model, NodeList, PeeweeException

from workers.connections import database
from workers.errors import ConfigurationError
from workers.records import existing_rows
from workers.sources import model_keys


def check_named(title: str, model: type[Model]) -> None:
    """Refuse a model whose database object was created without a name, and has none yet.

    Raises:
      ConfigurationError: It has none.
    """
    theirs = model._meta.database
    if theirs is None:
        raise ConfigurationError(
            f"{title}: the model {model.__name__} has no database",
            repair="write `database = workers.db` into its class Meta",
        )
    if getattr(theirs, "obj", theirs) is None or theirs.deferred:
        raise ConfigurationError(
            f"{title}: the database of {model.__name__} has no name",
            repair="call its init() or initialize() where your models are defined",
        )


def check(title: str, model: type[Model], unique_by: str | Iterable[str]) -> None:
    """Refuse a table that is missing, or that could contain a row twice.

    Parameters:
      title(str): The source, for messages.

    Raises:
      ConfigurationError: The table cannot be used; the message says the repair.
      peewee.PeeweeException: Its database does not answer.
    """
    if not model.table_exists():  # type: ignore[no-untyped-call]
        raise ConfigurationError(
            f"The database has no table {model._meta.table_name!r} for {model.__name__}",
            repair="create it, or let `python -m workers migrate --create-models` do it",
        )
    keys = model_keys.fields(model, unique_by)
    columns = CommaNodeList([Entity(key.column_name) for key in keys])
    nothing = CommaNodeList([SQL("NULL") for _ in keys])
    parts = ("EXPLAIN INSERT INTO ", " (", ") VALUES (", ") ON CONFLICT (", ") DO NOTHING")
    begin, opening, values, conflict, end = map(SQL, parts)
    explain = NodeList(
        (begin, existing_rows.table(model), opening, columns, values, nothing, conflict, columns, end), glue=""
    )
    try:
        with model._meta.database.atomic():
            existing_rows.database_of(model).execute(explain)
    except PeeweeException as error:
        if database.is_away(error):
            raise
        listed = ", ".join(key.column_name for key in keys)
        raise ConfigurationError(
            f"{title}: the table {model._meta.table_name!r} has no unique index on ({listed}), by which rows are found "
            f"again, so a second import would double every row",
            repair=f"create one ({database.explain(error)})",
        ) from error
