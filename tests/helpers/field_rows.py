"""Make a model of any columns and its twin, serve rows for it, and write the same rows with the driver."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import peewee
import requests

from tests.helpers.field_kinds import KINDS, Kind, Literal, Number
from workers import ImportSource, db, path, testing

_PLACE = re.compile(r'"@spelled:(\d+)"')


def sent_as_text(spelled: str) -> Literal:
    """Return JSON that the API sends as text and the source's code decodes: with Infinity and NaN."""
    return Literal(json.dumps({"@json": spelled}))


class Row:
    """One item of the API.

    Parameters:
      external_id(str): Its id.
      given(Mapping[str, object]): Column -> value.
      case(str): What it stands for, in a report.
    """

    def __init__(self, external_id: str, given: Mapping[str, Any], case: str = "") -> None:
        self.external_id = external_id
        self.given = dict(given)
        self.case = case or external_id


def make(
    name: str, columns: Mapping[str, Callable[[], peewee.Field]], *, detailed: bool = True, place: Any = db, **more: Any
) -> tuple[Any, Any]:
    """Return a model that an import fills, and its twin, whose rows are written one by one with the driver.

    Parameters:
      columns(Mapping[str, Callable]): Name -> what makes its field.
      detailed(bool): Whether a row has a detail request.
      place(peewee.Database): Where the tables are.
      more: Attributes of the model.
    """
    return tuple(_model(each, columns, detailed, place, more) for each in (name, f"{name}_twin"))


def _model(name: str, columns: Mapping[str, Any], detailed: bool, place: Any, more: Mapping[str, Any]) -> Any:
    def request_of(self: Any) -> requests.Request | None:
        return requests.Request("GET", path("rows", self.external_id)) if detailed else None

    def populate(self: Any, data: Mapping[str, Any]) -> None:
        for column, value in decoded(data["given"]).items():
            setattr(self, column, value)

    meta = type("Meta", (), {"database": place, "table_name": name})
    own = {
        "Meta": meta,
        "external_id": peewee.CharField(unique=True),
        "get_external_id": lambda self: self.external_id,
        "get_api_detail_request": request_of,
        "populate_from_api_response": populate,
    }
    model: Any = type(name, (peewee.Model,), {**own, **{column: build() for column, build in columns.items()}, **more})
    model.create_table()
    return model


# --- values on the wire -----------------------------------------------------------------------------------------------


def encoded(row: Row) -> str:
    """Return a row as JSON; a value that JSON has no form for as its kind's and case's name."""
    spelled = [value for value in row.given.values() if isinstance(value, (Number, Literal))]
    places = {id(value): f"@spelled:{place}" for place, value in enumerate(spelled)}
    given = {column: places.get(id(value)) or _sent(column, value) for column, value in row.given.items()}
    return _PLACE.sub(lambda found: spelled[int(found[1])], json.dumps({"id": row.external_id, "given": given}))


def decoded(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a source's code would set: JSON's, or what its own code makes of them."""
    return {column: _received(value) for column, value in given.items()}


def _sent(column: str, value: Any) -> Any:
    try:
        if json.loads(json.dumps(value)) == value and type(json.loads(json.dumps(value))) is type(value):
            return value
    except TypeError:
        pass
    kind = kind_of(column)
    case = next(case for case, known in kind.values.items() if known is value)
    return {"@python": [kind.name, case]}


def kind_of(column: str) -> Kind:
    """Return a column's kind: the columns of a wide model are numbered, as in `date__7`."""
    return KINDS[column.rpartition("__")[0] or column]


def _received(value: Any) -> Any:
    if isinstance(value, dict) and "@json" in value:
        return json.loads(value["@json"])
    if isinstance(value, dict) and "@python" in value:
        kind, case = value["@python"]
        return KINDS[kind].values[case]
    return value


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as Python's own json reads them: what the driver is given."""
    return {column: float(value) if isinstance(value, Number) else value for column, value in given.items()}


# --- the API ----------------------------------------------------------------------------------------------------------


@contextmanager
def served(rows: Sequence[Row], *, bare: bool = False) -> Iterator[str]:
    """Serve a list of rows and a detail for each; yields the address.

    Parameters:
      bare(bool): The list has only the ids; the details have the values.
    """
    details = {row.external_id: encoded(row) for row in rows}
    listed = [json.dumps({"id": row.external_id, "given": {}}) if bare else encoded(row) for row in rows]

    def answer(request: testing.Request) -> testing.Response:
        body = details.get(unquote(request.path.removeprefix("/rows/"))) or page(request.query)
        return testing.Response(200, body, {"Content-Type": "application/json"})

    def page(query: Mapping[str, str]) -> str:
        number, size = int(query["page"]), int(query["perPage"])
        end = number * size
        following = "true" if end < len(listed) else "null"
        return f'{{"data": [{", ".join(listed[end - size : end])}], "next_page_url": {following}}}'

    with testing.api(answer) as server:
        yield server.url


class RowSource(ImportSource):
    """The source of the rows: the values stand in each list item, or in its detail."""

    name = "rows"
    lanes = 1
    total_key = None

    def get_list_request(self, cursor: Any, per_page: int) -> requests.Request:
        return requests.Request("GET", "rows", params={"page": cursor, "perPage": per_page})

    def create_model_from_list_item(self, item: Mapping[str, Any]) -> Any:
        return self.model(external_id=item["id"], **decoded(item["given"]))


# --- the driver -------------------------------------------------------------------------------------------------------


def insert_alone(twin: Any, row: Row) -> Exception | None:
    """Write a new row with the driver, alone; return why it is refused."""
    try:
        _bar(row)
        twin(external_id=row.external_id, **plain(row.given)).save()
    except Exception as error:
        return error
    return None


def update_alone(twin: Any, row: Row) -> Exception | None:
    """Change a row that is there with the driver, alone; return why it is refused."""
    try:
        _bar(row)
        known = twin.get(twin.external_id == row.external_id)
        for column, value in plain(row.given).items():
            setattr(known, column, value)
        if known.dirty_fields:
            known.save(only=known.dirty_fields)
    except Exception as error:
        return error
    return None


def _bar(row: Row) -> None:
    for column, value in row.given.items():
        kind = kind_of(column)
        if any(value is kind.values[case] for case in kind.barred):
            raise ValueError(f"{column} is not to take {value!r} on any database")


def is_readable(twin: Any, row: Row) -> bool:
    """Whether the model reads its own row: SQLite keeps "abc" in a decimal column, of which peewee makes no Decimal."""
    try:
        twin.get(twin.external_id == row.external_id)
    except Exception:
        return False
    return True
