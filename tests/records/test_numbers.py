"""Numbers that a float does not hold: what overflows is refused, what loses digits keeps what was written."""

import copy
import json
import math
import pickle
from decimal import Decimal

import pytest
import requests
from peewee import DecimalField, DoubleField, Model

from tests.helpers.raw_api import api, http
from workers import Connector, Limit, db
from workers.connections import database
from workers.errors import PermanentError
from workers.records import schema
from workers.sources.body_decoding import _loads
from workers.sources.exact_float import ExactFloat, NotANumber, read_float

LONG = "12345678901234567.89"

#: Literals that a float holds: printed, it is the same number.
HELD = [
    *(
        "0.0",
        "-0.0",
        "19.99",
        "19.90",
        "-19.99",
        "0.1",
        "1.5e3",
        "1E3",
        "1e-7",
        "123456789012.345",
        "100000000000000.5",
    ),
    *("0.30000000000000004", "1e22", "1.7976931348623157e308", "5e-324"),
]
#: Literals that it does not.
LOST = [
    *(LONG, f"-{LONG}", "9007199254740993.0", "0.1000000000000000055", "1.00000000000000000001", "1e-400", "4e-324"),
    *("123456789012345678e-2", "0." + "3" * 30, "1234567890123456.78E1"),
]
TOO_LARGE = ["1e400", "-1e400", "1E309", "1.8e308", "9" * 400 + ".0", "1e99999999999999999999"]


@pytest.mark.parametrize("literal", HELD)
def test_a_number_that_a_float_holds_is_a_plain_float(literal):
    found = _loads(f"[{literal}]")[0]

    assert type(found) is float
    assert (found, math.copysign(1, found)) == (float(literal), math.copysign(1, float(literal)))
    assert Decimal(str(found)) == Decimal(literal)


@pytest.mark.parametrize("literal", LOST)
def test_a_number_that_a_float_does_not_hold_keeps_what_was_written(literal):
    found = _loads(f'{{"price": {literal}}}')["price"]

    assert isinstance(found, ExactFloat)
    assert found == float(literal)
    assert found.literal == literal
    assert found.to_decimal() == Decimal(literal)
    assert Decimal(str(found)) != Decimal(literal)


@pytest.mark.parametrize("literal", TOO_LARGE)
def test_a_number_larger_than_a_float_is_refused_by_its_name(literal):
    with pytest.raises(NotANumber, match="larger than a float can be: the API should send it as text") as caught:
        _loads(f"[{literal}]")

    assert str(caught.value).startswith(literal[:40])
    assert len(str(caught.value)) < 130


def test_a_number_of_endless_digits_is_refused():
    with pytest.raises(NotANumber, match="too many digits"):
        _loads(f"[0.{'3' * 5000}]")


@pytest.mark.parametrize("literal", ["1e-99999999999999999999", "0e99999999999999999999"])
def test_an_exponent_without_an_end_is_refused_by_its_name(literal):
    with pytest.raises(NotANumber, match="too large an exponent"):
        _loads(f"[{literal}]")


def test_an_answer_with_such_a_number_is_bad_data(environment, redis_server):
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    with api({"/x": http('{"price": 1e400}')}) as server:
        connector = Connector("api", base_url=server.url, limits=[Limit(10, seconds=60)])

        with pytest.raises(
            PermanentError, match="the GET request answered 200 with 1e400, a number larger than"
        ) as caught:
            connector.get_json(requests.Request("GET", "x"), connector.permit_client())

    assert caught.value.failure_class == "bad_data"


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("plus", lambda n: n + 1),
        ("from the right", lambda n: 1 + n),
        ("times", lambda n: n * 2.5),
        ("by", lambda n: n / 3),
        ("whole", lambda n: n // 7),
        ("rest", lambda n: n % 7),
        ("power", lambda n: n**2),
        ("negative", lambda n: -n),
        ("positive", lambda n: +n),
        ("absolute", abs),
        ("rounded", lambda n: round(n, 2)),
        ("to a whole number", int),
        ("to the nearest", round),
        ("to a float", float),
        ("in a sum", lambda n: sum([n, n])),
        ("as text", str),
        ("as it is shown", repr),
        ("formatted", lambda n: f"{n:,.3f} {n} {n:g}"),
        ("as JSON", lambda n: json.dumps({"n": n})),
        ("hashed", hash),
        ("sorted", lambda n: sorted([n + 4, n, 1.0])),
        ("compared", lambda n: (n == 12345678901234568.0, n < 2e16, n > 1, n != 1.0)),
        ("as a key", lambda n: {12345678901234568.0: "found"}[n]),
        ("true", bool),
        ("in the math module", math.sqrt),
        ("as a decimal of its text", lambda n: Decimal(str(n))),
        ("as a decimal", Decimal),
        ("as a ratio", lambda n: n.as_integer_ratio()),
    ],
)
def test_what_is_done_with_it_comes_out_as_with_any_float(name, result):
    found = result(ExactFloat(LONG))

    assert found == result(float(LONG))
    assert type(found) is type(result(float(LONG)))


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, *(lambda n, p=p: pickle.loads(pickle.dumps(n, p)) for p in range(6))],
)
def test_a_copy_keeps_what_was_written(copied):
    found = copied({"n": ExactFloat(LONG)})["n"]

    assert type(found) is ExactFloat
    assert (found, found.literal) == (float(LONG), LONG)


def test_it_is_read_only_once():
    assert read_float(LONG).literal == LONG
    with pytest.raises(AttributeError):
        ExactFloat(LONG).other = 1


class Priced(Model):
    ratio = DoubleField()
    price = DecimalField(max_digits=30, decimal_places=2, null=True)

    class Meta:
        database = db
        table_name = "field_priced"


def test_both_drivers_take_it_as_a_float(house):
    schema.migrate([Priced])

    Priced.create(ratio=ExactFloat(LONG))
    Priced.insert_many([{"ratio": ExactFloat("0.1000000000000000055")}, {"ratio": 0.5}]).execute()

    assert [row.ratio for row in Priced.select().order_by(Priced.id)] == [float(LONG), 0.1, 0.5]
    assert Priced.select().where(Priced.ratio == ExactFloat(LONG)).count() == 1


def test_a_decimal_of_what_was_written_is_whole_on_postgres_and_has_15_digits_on_sqlite(house):
    schema.migrate([Priced])

    row = Priced.create(ratio=1.0, price=ExactFloat(LONG).to_decimal())

    found = Priced.get_by_id(row.id).price
    if "postgres" in database.db.obj.__class__.__name__.lower():
        assert found == Decimal(LONG)
    else:
        assert abs(found - Decimal(LONG)) <= Decimal("10")
        assert f"{found:.15g}" == f"{Decimal(LONG):.15g}"
