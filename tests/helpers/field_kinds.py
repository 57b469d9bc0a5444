"""List the kinds of columns: every peewee and playhouse field, and raw Postgres types, each with values to write."""

import datetime
import decimal
import enum
import ipaddress
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import peewee
from playhouse import fields, postgres_ext, sqlite_ext
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from workers import db
from workers.connections import database

BOTH, SQLITE, POSTGRES = ("sqlite", "postgres"), ("sqlite",), ("postgres",)


class Number(str):
    """A JSON number as an API spells it: `Number("19.90")` is sent as 19.90."""

    def __repr__(self) -> str:
        return str(self)


class Literal(str):
    """A JSON value as an API spells it, whatever Python's json would make of it."""


class Shelf(peewee.Model):
    """What the foreign key points at: shelves 1, 2 and 3."""

    class Meta:
        database = db
        table_name = "shelves"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


@dataclass(frozen=True)
class Kind:
    """A column, and what is written to it.

    Parameters:
      name(str): Of the column.
      make(Callable): Makes the field; takes peewee's options (null, default).
      values(Mapping[str, object]): Case -> value. "good" is accepted by each database that has the column; "text" is
        such a value as an API sends it; "wrong" is refused by at least one database. NULL is a case of every kind.
      on(Sequence[str]): The databases that have such a column.
      barred(Sequence[str]): The cases that the package refuses, whatever a driver says: it is no number, or no UUID.
    """

    name: str
    make: Callable[..., peewee.Field]
    values: Mapping[str, Any]
    on: Sequence[str] = BOTH
    barred: Sequence[str] = ()

    @property
    def cases(self) -> dict[str, Any]:
        """All values by case, NULL among them."""
        return {"null": None, **self.values}


def _of(field_class: Callable[..., peewee.Field], /, **settings: Any) -> Callable[..., peewee.Field]:
    return lambda **options: field_class(**settings | options)


def _raw(column_type: str) -> Callable[..., peewee.Field]:
    """Return what makes a field of a column type that peewee has no field for."""
    return type("RawField", (peewee.Field,), {"field_type": column_type})


def _foreign_key(**options: Any) -> peewee.Field:
    return peewee.ForeignKeyField(Shelf, backref="+", index=False, **options)


def _array(element: type[peewee.Field], dimensions: int = 1) -> Callable[..., peewee.Field]:
    return _of(postgres_ext.ArrayField, field_class=element, dimensions=dimensions, index=False)


_D = decimal.Decimal
_ID = uuid.UUID("6f1c3f0e-2f0b-4a57-8a3e-0b9d1c5e7a42")
_NOON = datetime.datetime(2024, 1, 2, 12, 30, 15, 250_000)
_AWARE = _NOON.replace(tzinfo=datetime.UTC)
_TREE = {"a": [1, {"b": None}], "ä": "\u2028"}

# fmt: off
PEEWEE = [
    Kind("integer", peewee.IntegerField,
         {"good": 7, "text": "7", "number": Number("12.5"), "large": 2**40, "wrong": "seven"}, barred=["wrong"]),
    Kind("big_integer", peewee.BigIntegerField, {"good": 2**40, "text": "7", "wrong": 2**63}),
    Kind("small_integer", peewee.SmallIntegerField, {"good": -7, "text": "7", "large": 40_000, "wrong": ""},
         barred=["wrong"]),
    Kind("float", peewee.FloatField,
         {"good": 1.5, "text": "19.99", "whole": 3, "number": Number("0.1"), "wrong": "abc"}, barred=["wrong"]),
    Kind("double", peewee.DoubleField,
         {"good": 1e300, "text": "1e3", "number": Number("1e2"), "wrong": "1,5"}, barred=["wrong"]),
    Kind("decimal", _of(peewee.DecimalField, max_digits=10, decimal_places=2),
         {"good": _D("19.99"), "text": "19.99", "number": Number("19.99"), "whole": 20, "zero": "0",
          "finer": _D("1.005"), "large": _D("123456789012.5"), "wrong": "abc"}, barred=["wrong"]),
    Kind("rounded", _of(peewee.DecimalField, max_digits=10, decimal_places=2, auto_round=True),
         {"good": _D("19.999"), "text": "19.994", "number": Number("19.996"), "wrong": "abc"}),
    Kind("wide_decimal", _of(peewee.DecimalField, max_digits=20, decimal_places=2),
         {"good": _D("20.5"), "digits": _D("123456789012345678.91"), "text": "123456789012345678.91"}),
    Kind("char", _of(peewee.CharField, max_length=5),
         {"good": "abc", "text": 12, "accents": "àéîõü", "empty": "", "long": "abcdefg", "wrong": {"a": 1}}),
    Kind("fixed_char", _of(peewee.FixedCharField, max_length=5),
         {"good": "abc", "text": 12, "spaces": " b ", "long": "abcdefg"}),
    Kind("text", peewee.TextField,
         {"good": "a 'quoted' %s \\ text", "text": 12, "number": Number("19.90"), "true": True, "list": [1, "a"]}),
    Kind("blob", peewee.BlobField,
         {"good": b"\x00\xff", "text": "abc", "bytearray": bytearray(b"\x01"), "wrong": 5}),
    Kind("bit", peewee.BitField, {"good": 5, "text": "5", "wrong": "five"}, barred=["wrong"]),
    Kind("big_bit", peewee.BigBitField, {"good": b"\x05", "text": "abc", "wrong": 5}),
    Kind("uuid", peewee.UUIDField,
         {"good": _ID, "text": str(_ID), "hex": _ID.hex, "upper": str(_ID).upper(), "wrong": "no UUID"},
         barred=["wrong"]),
    Kind("binary_uuid", peewee.BinaryUUIDField, {"good": _ID, "text": _ID.hex, "wrong": str(_ID)}),
    Kind("datetime", peewee.DateTimeField,
         {"good": _NOON, "text": "2024-01-02 12:30:15", "iso": "2024-01-02T12:30:15Z", "aware": _AWARE,
          "day": "2024-01-02", "offset": "2024-01-02T12:30:15+02:00", "number": 1704198615, "wrong": "soon"}),
    Kind("date", peewee.DateField,
         {"good": _NOON.date(), "text": "2024-01-02", "instant": "2024-01-02T12:30:15Z", "wrong": "soon"}),
    Kind("time", peewee.TimeField, {"good": _NOON.time(), "text": "12:30", "zone": "12:30:15+02:00", "wrong": "soon"}),
    Kind("timestamp", _of(peewee.TimestampField, default=None, utc=True),
         {"good": _NOON, "text": "2024-01-02 12:30:15", "number": 1704198615, "wrong": "soon"}),
    Kind("fine_timestamp", _of(peewee.TimestampField, default=None, utc=True, resolution=1000),
         {"good": _NOON, "text": "2024-01-02 12:30:15.250000"}),
    Kind("ip", peewee.IPField, {"good": "10.0.0.1", "text": "255.255.255.255", "wrong": "10.0.0.256"}),
    Kind("boolean", peewee.BooleanField,
         {"good": True, "false": False, "text": "true", "zero": 0, "word": "false", "empty": ""}),
    Kind("json", peewee.JSONField,
         {"good": _TREE, "list": [1, "a"], "empty": {}, "none": [], "text": "abc", "number": Number("12.50"),
          "true": True, "wrong": {1, 2}}),
    Kind("foreign_key", _foreign_key, {"good": 2, "text": "3", "wrong": 99}),
    Kind("bare", peewee.BareField, {"good": 7, "text": "7", "blob": b"\x00", "wrong": {"a": 1}}, SQLITE),
    Kind("any", peewee.AnyField, {"good": 7, "text": "7", "wrong": {"a": 1}}, SQLITE),
]

PLAYHOUSE = [
    Kind("compressed", fields.CompressedField, {"good": b"abc" * 9, "text": "abc", "wrong": 5}),
    Kind("pickled", fields.PickleField, {"good": {"a": (1, 2)}, "text": "abc", "number": Number("1.5")}),
    Kind("enum", _of(fields.EnumField, enum_class=Colour), {"good": Colour.RED, "text": "blue", "wrong": "green"}),
    Kind("int_enum", _of(fields.IntEnumField, enum_class=Size), {"good": Size.LARGE, "text": 1, "wrong": 3}),
    Kind("utc", database.UTCDateTimeField, {"good": _AWARE, "wrong": "2024-01-02T12:30:15Z"}),
    Kind("sqlite_json", sqlite_ext.JSONField, {"good": _TREE, "none": [], "text": "abc", "wrong": {1, 2}}, SQLITE),
    Kind("sqlite_jsonb", sqlite_ext.JSONBField, {"wrong": {1, 2}, "text": "abc"}, SQLITE),
    Kind("text_decimal", sqlite_ext.TDecimalField, {"good": _D("123456789012345678.91"), "text": "19.99"}, SQLITE),
    Kind("iso_datetime", sqlite_ext.ISODateTimeField,
         {"good": _AWARE, "text": "2024-01-02T12:30:15Z", "wrong": 5}, SQLITE),
    Kind("array_of_integers", _array(peewee.IntegerField),
         {"good": [1, 2, 3], "none": [], "text": ["1", "2"], "hole": [1, None], "wrong": ["a"]}, POSTGRES),
    Kind("array_of_texts", _array(peewee.TextField),
         {"good": ["a", 'b"c', "d,e"], "none": [], "text": "abc", "hole": ["a", None], "wrong": 5}, POSTGRES),
    Kind("array_of_arrays", _array(peewee.IntegerField, 2),
         {"good": [[1, 2], [3, 4]], "none": [], "wrong": [[1, 2], [3]]}, POSTGRES),
    Kind("array_of_decimals", _array(peewee.DecimalField),
         {"good": [_D("1.5")], "none": [], "text": ["19.99"], "wrong": ["a"]}, POSTGRES),
    Kind("binary_json", _of(postgres_ext.BinaryJSONField, index=False),
         {"good": _TREE, "none": [], "text": "abc", "number": Number("12.50"), "wrong": {1, 2}}, POSTGRES),
    Kind("postgres_json", postgres_ext.JSONField,
         {"good": _TREE, "none": [], "text": "abc", "wrong": {1, 2}}, POSTGRES),
    Kind("hstore", _of(postgres_ext.HStoreField, index=False),
         {"good": "a=>1, b=>NULL", "wrong": {"a": "1"}}, POSTGRES),
    Kind("tsvector", _of(postgres_ext.TSVectorField, index=False),
         {"good": "a fat cat", "text": "'cat':3", "wrong": "'"}, POSTGRES),
    Kind("datetime_tz", postgres_ext.DateTimeTZField,
         {"good": _AWARE, "naive": _NOON, "text": "2024-01-02T12:30:15Z", "wrong": "soon"}, POSTGRES),
    Kind("interval", postgres_ext.IntervalField,
         {"good": datetime.timedelta(days=1, seconds=5), "text": "1 day 00:00:05", "wrong": "soon"}, POSTGRES),
]

RAW = [
    Kind("mood", _raw("mood"), {"good": "glad", "text": "sad", "wrong": "green"}, POSTGRES),
    Kind("moods", _raw("mood[]"), {"good": "{glad,sad}", "wrong": ["glad"], "text": "{}"}, POSTGRES),
    Kind("inet", _raw("INET"),
         {"good": ipaddress.ip_address("10.0.0.1"), "text": "10.0.0.0/8", "wrong": "10.0.0.256"}, POSTGRES),
    Kind("cidr", _raw("CIDR"),
         {"good": ipaddress.ip_network("10.0.0.0/8"), "text": "::/0", "wrong": "10.0.0.1/8"}, POSTGRES),
    Kind("macaddr", _raw("MACADDR"), {"good": "08:00:2b:01:02:03", "text": "08002b010203", "wrong": "x"}, POSTGRES),
    Kind("citext", _raw("CITEXT"), {"good": "Bob@x.io", "text": "bob@x.io", "wrong": ["a"]}, POSTGRES),
    Kind("texts", _raw("TEXT[]"), {"good": ["a", "b"], "none": [], "text": "{a,b}", "wrong": "abc"}, POSTGRES),
    Kind("range", _raw("INT4RANGE"), {"good": Range(1, 5), "text": "[1,5]", "wrong": "5,1"}, POSTGRES),
    Kind("numeric", _raw("NUMERIC"),
         {"good": _D("12345678901234567890.123456789"), "text": "1e-20", "whole": 10**30, "wrong": "abc"}, POSTGRES),
    Kind("code", _raw("code"), {"good": "ABC", "text": "Z", "long": "ABCDEFGHI", "wrong": "abc"}, POSTGRES),
    Kind("varchar", _raw("VARCHAR(5)"), {"good": "abc", "spaces": "abc    ", "long": "abcdefg"}, POSTGRES),
    Kind("fixed", _raw("CHAR(4)"), {"good": "abcd", "spaces": "a ", "blanks": "ab      ", "long": "abcdef"}, POSTGRES),
    Kind("bits", _raw("BIT(4)"), {"good": "1010", "short": "101", "long": "10101", "wrong": 5}, POSTGRES),
    Kind("varbits", _raw("VARBIT(4)"), {"good": "101", "empty": "", "long": "10101"}, POSTGRES),
    Kind("seconds", _raw("INTERVAL(0)"),
         {"good": datetime.timedelta(seconds=1.6), "text": "1.6 seconds", "wrong": "soon"}, POSTGRES),
    Kind("instant", _raw("TIMESTAMPTZ(0)"), {"good": _AWARE, "text": "2024-01-02T12:30:15.6Z"}, POSTGRES),
    Kind("jsonb", _raw("JSONB"), {"good": Jsonb(_TREE), "text": '{"a": 1.50}', "wrong": {"a": 1}}, POSTGRES),
    Kind("plain_json", _raw("json"), {"good": Jsonb(_TREE), "text": '{"a":  1}', "wrong": "{"}, POSTGRES),
    Kind("money", _raw("MONEY"), {"good": "$1,234.50", "text": "19.999", "wrong": "abc"}, POSTGRES),
    Kind("xml", _raw("XML"), {"good": "<a>b</a>", "text": "b", "wrong": "<a>"}, POSTGRES),
    Kind("point", _raw("POINT"), {"good": "(1,2)", "text": "1.5,2", "wrong": "1"}, POSTGRES),
    Kind("real", _raw("REAL"), {"good": 1.1, "text": "1.1", "wrong": "abc"}, POSTGRES),
    Kind("oid", _raw("OID"), {"good": 42, "text": "42", "wrong": -(2**40)}, POSTGRES),
    Kind("zoned_time", _raw("TIMETZ"), {"good": _AWARE.timetz(), "text": "12:30+02", "wrong": "soon"}, POSTGRES),
    Kind("parcel", _raw("parcel"), {"good": "(1,box)", "text": '(,"a b")', "wrong": "(1)"}, POSTGRES),
]
# fmt: on

KINDS = {kind.name: kind for kind in (*PEEWEE, *PLAYHOUSE, *RAW)}

_TYPES = (
    "CREATE EXTENSION citext",
    "CREATE EXTENSION hstore",
    "CREATE TYPE mood AS ENUM ('sad', 'glad')",
    "CREATE TYPE parcel AS (weight integer, label text)",
    "CREATE DOMAIN code AS varchar(8) CHECK (VALUE ~ '^[A-Z]+$')",
)


def here() -> list[Kind]:
    """Return the kinds of columns that the database in use has."""
    name = "sqlite" if database.is_sqlite() else "postgres"
    return [kind for kind in KINDS.values() if name in kind.on]


def prepare() -> None:
    """Create what the columns stand on in the database in use: Postgres's types, and the shelves."""
    for statement in () if database.is_sqlite() else _TYPES:
        db.execute_sql(statement)
    Shelf.create_table()
    Shelf.insert_many([{"id": number} for number in (1, 2, 3)]).execute()


def stored(model: type[peewee.Model]) -> dict[str, dict[str, Any]]:
    """Return what the rows of a table hold, as the database itself spells it: external id -> column -> text."""
    names = [each.name for each in model._meta.sorted_fields if each.name not in ("id", "external_id")]
    spelled = ", ".join(_SPELLED[database.is_sqlite()].format(model._meta.fields[name].column_name) for name in names)
    place = model._meta.database
    rows = place.execute_sql(f"SELECT external_id, {spelled} FROM {model._meta.table_name}").fetchall()
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}


_SPELLED = {True: 'typeof("{0}") || \' \' || quote("{0}")', False: '"{0}"::text'}
