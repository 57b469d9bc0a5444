"""Every kind of column, by whole runs: a row holds what the database's driver makes of its values, or fails."""

import itertools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import peewee
import pytest

from tests.helpers import registered_sources
from tests.helpers.field_kinds import KINDS, Kind, Literal, Number, here, prepare, stored
from tests.helpers.field_rows import Row, RowSource, insert_alone, is_readable, make, sent_as_text, served, update_alone
from workers import Connector, Limit, clock, settings
from workers.connections import database
from workers.control import runner
from workers.failures import FailureClass
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus
from workers.sources import registry

#: A run of these tests takes a second or two, on a busy machine ten: one that takes as long as this has no end.
HANG_SECONDS = 120.0


@pytest.fixture
def import_rows(house: pytest.MonkeyPatch, moved_clock: clock.MovedClock) -> Iterator[Callable[..., Run]]:
    """Import rows into a model by one whole run: import_rows(model, rows, bare=True, together=100)."""
    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    prepare()

    def run(model: Any, rows: Sequence[Row], *, bare: bool, together: int = 100) -> Run:
        house.setenv("SLUICE_BATCH_SIZE", str(together))
        with served(rows, bare=bare) as url:
            api = Connector("rows", base_url=url, limits=[Limit(100_000, seconds=1)])
            source = type("Rows", (RowSource,), {"model": model, "connector": api, "per_page": together})
            registered_sources.SOURCES[:] = [source()]
            settings.get_settings.cache_clear()
            registry.get_registry.cache_clear()
            signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
            run = runner.run_inline(runner.start_inline("rows", who="test", door="test"))
            signal.setitimer(signal.ITIMER_REAL, 0)
            return run

    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"the run hangs: {HANG_SECONDS} s"))
    yield run
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def columns(kinds: Sequence[Kind]) -> dict[str, Callable[[], Any]]:
    return {kind.name: lambda kind=kind: kind.make(null=True) for kind in kinds}


def rows_of_one_case(kinds: Sequence[Kind]) -> list[Row]:
    """Return one row for each case of each kind: it gives this one column."""
    every = [(kind, case, value) for kind in kinds for case, value in kind.cases.items()]
    return [Row(f"{kind.name}-{case}", {kind.name: value}) for kind, case, value in every]


def differences(model: Any, twin: Any) -> dict[str, tuple[Any, Any]]:
    """Return where the tables differ: "id: column" -> (the driver's, ours)."""
    expected, found = stored(twin), stored(model)
    assert sorted(expected) == sorted(found)
    pairs = [(i, name, value, found[i][name]) for i, row in expected.items() for name, value in row.items()]
    return {f"{i}: {name}": (expected, found) for i, name, expected, found in pairs if expected != found}


def completed(run: Run) -> set[str]:
    done = (RunItem.run_id == run.id) & (RunItem.status == ItemStatus.COMPLETED)
    return {item.external_id for item in RunItem.select().where(done)}


def failures(run: Run) -> list[tuple[str, str]]:
    """Return each failed item's class, and its reason."""
    failed = (RunItem.run_id == run.id) & (RunItem.status == ItemStatus.FAILED)
    return [(item.failure_class, item.failure_reason) for item in RunItem.select().where(failed)]


def write_alone(twin: Any, row: Row, bare: bool) -> bool:
    """Write a row to the twin, all at once or as an empty row that is changed; return whether the driver took it."""
    if not bare:
        return insert_alone(twin, row) is None and is_readable(twin, row)
    assert insert_alone(twin, Row(row.external_id, {})) is None
    return update_alone(twin, row) is None


def remove(twin: Any, rows: Sequence[Row]) -> None:
    twin.delete().where(twin.external_id.in_([row.external_id for row in rows])).execute()


# --- rows that are taken: alone, among others, NULLs before and after the values --------------------------------------


def nulls_first(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: None not in row.given.values())


ORDERS: Mapping[str, Callable[[Sequence[Row]], list[Row]]] = {
    "kind by kind": list,
    "NULLs first": nulls_first,
    "NULLs last": lambda rows: nulls_first(rows)[::-1],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bare", [False, True], ids=["list", "detail"])
def test_what_the_driver_takes_alone_is_written_with_others(import_rows, bare, order):
    # Given rows that the driver takes one by one
    model, twin = make("thing", columns(here()), detailed=bare)
    rows = rows_of_one_case(here())
    taken = [row for row in rows if write_alone(twin, row, bare)]
    remove(twin, [row for row in rows if row not in taken])

    # When they come in pages and commits of a hundred
    run = import_rows(model, ORDERS[order](taken), bare=bare)

    # Then
    assert failures(run) == []
    assert differences(model, twin) == {}


@pytest.fixture
def their_database(house: pytest.MonkeyPatch) -> Iterator[peewee.Database]:
    """A database that is not ours: another file of SQLite, or the same Postgres by another object."""
    ours = database.db.obj
    if database.is_sqlite():
        theirs = peewee.SqliteDatabase(f"{ours.database}-theirs")
    else:
        theirs = peewee.PostgresqlDatabase(ours.database, prefer_psycopg3=True, **ours.connect_params)
    yield theirs
    theirs.close()


#: How many rows come together, what is particular about the model, and which kinds it cannot have: save() writes what
#: was loaded, and psycopg takes no bare dictionary; the shelves are on our database.
WAYS: Mapping[str, tuple[int, dict[str, Any], Sequence[str]]] = {
    "one by one": (1, {}, ()),
    "together": (100, {}, ()),
    "each by its own save()": (100, {"save_each": True}, ("jsonb", "plain_json")),
    "on a database of its own": (100, {"place": "theirs"}, ("foreign_key",)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bare", [False, True], ids=["list", "detail"])
def test_what_the_driver_refuses_fails_alone(import_rows, request, bare, way):
    # Given the driver's judgement of each row
    together, options, left_out = WAYS[way]
    kinds = [kind for kind in here() if kind.name not in left_out]
    if "place" in options:
        options = {"place": request.getfixturevalue("their_database")}
    model, twin = make("thing", columns(kinds), detailed=bare, **options)
    rows = rows_of_one_case(kinds)
    taken = {row.external_id for row in rows if write_alone(twin, row, bare)}
    assert 0 < len(taken) < len(rows)

    # When all come
    run = import_rows(model, rows, bare=bare, together=together)

    # Then
    assert run.status == RunStatus.COMPLETED
    assert completed(run) ^ taken == set()
    assert len(failures(run)) == len(rows) - len(taken)
    assert [failure for failure in failures(run) if failure[0] != FailureClass.BAD_DATA or not failure[1]] == []
    if not bare:
        remove(twin, [row for row in rows if row.external_id not in taken])
        remove(model, [row for row in rows if row.external_id not in taken])
    assert differences(model, twin) == {}


def test_a_list_that_comes_again_with_other_values_changes_its_rows_as_the_driver_does(import_rows):
    # Given rows that the driver takes, and takes again with the next value of their kind
    model, twin = make("thing", columns(here()), detailed=False)
    first = [row for row in rows_of_one_case(here()) if write_alone(twin, row, False)]
    twin.delete().where(twin.external_id.not_in([row.external_id for row in first])).execute()
    second = [Row(row.external_id, {**other.given}) for row, other in zip(first, first[1:] + first[:1], strict=True)]
    import_rows(model, first, bare=False)
    taken = {row.external_id for row in second if update_alone(twin, row) is None}

    # When
    run = import_rows(model, second, bare=False)

    # Then
    assert completed(run) ^ taken == set()
    assert differences(model, twin) == {}


# --- wide models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", [False, True], ids=["list", "detail"])
def test_500_rows_of_140_columns_are_written_together(import_rows, bare):
    # Given a model of 140 columns, and rows that give all of them, each another case of its kind
    kinds = [kind for kind in here() if kind.name != "sqlite_jsonb"]
    wide = {f"{kinds[n % len(kinds)].name}__{n}": kinds[n % len(kinds)] for n in range(140)}
    model, twin = make(
        "wide", {name: lambda kind=kind: kind.make(null=True) for name, kind in wide.items()}, detailed=bare
    )
    cases = {kind.name: accepted(kind) for kind in kinds}
    rows = [
        Row(
            str(n),
            {name: cases[kind.name][(n + at) % len(cases[kind.name])] for at, (name, kind) in enumerate(wide.items())},
        )
        for n in range(500)
    ]
    for row in rows:
        assert write_alone(twin, row, bare), row.given

    # When
    run = import_rows(model, rows, bare=bare, together=500)

    # Then
    assert failures(run) == []
    assert differences(model, twin) == {}


def accepted(kind: Kind) -> list[Any]:
    """Return the values of a kind that the database in use takes, NULL among them: tried in a table of one column."""
    _, twin = make(f"one_{kind.name}", columns([kind]))
    tried = [Row(case, {kind.name: value}) for case, value in kind.cases.items()]
    return [row.given[kind.name] for row in tried if write_alone(twin, row, False)]


# --- values that are changed in place ---------------------------------------------------------------------------------


def grow(tags: Any) -> None:
    tags.append("x")


IN_PLACE: Mapping[str, tuple[str, Any, Callable[[Any], None]]] = {
    "a key of a dictionary": ("json", {"a": 1}, lambda value: value.update(b=2)),
    "a key that goes": ("json", {"a": 1, "b": 2}, lambda value: value.pop("a")),
    "a list in JSON": ("json", [1], grow),
    "a list within a dictionary": ("json", {"a": {"b": [1]}}, lambda value: grow(value["a"]["b"])),
    "a number that becomes a flag": ("json", {"a": 1}, lambda value: value.update(a=True)),
    "a dictionary of binary JSON": ("binary_json", {"a": 1}, lambda value: value.update(b=2)),
    "a dictionary of Postgres's JSON": ("postgres_json", {"a": 1}, lambda value: value.update(b=2)),
    "a dictionary of SQLite's JSON": ("sqlite_json", {"a": [1]}, lambda value: grow(value["a"])),
    "an array of texts": ("array_of_texts", ["a"], grow),
    "an empty array": ("array_of_texts", [], grow),
    "an array of arrays": ("array_of_arrays", [[1, 2]], lambda value: value.append([3, 4])),
    "a row within an array": ("array_of_arrays", [[1, 2]], lambda value: value[0].reverse()),
    "a raw array": ("texts", ["a"], grow),
    "what was pickled": ("pickled", {"a": [1]}, lambda value: grow(value["a"])),
    "a bit of a big bit field": ("big_bit", b"\x01", lambda value: value.set_bit(9)),
}


@pytest.mark.parametrize("besides", [False, True], ids=["alone", "besides another field"])
def test_a_value_that_is_changed_in_place_is_written(import_rows, besides):
    # Given rows that are in the table, and details that change a value in place
    model, twin = make("thing", columns(here()))
    cases = {case: change for case, change in IN_PLACE.items() if change[0] in model._meta.fields}
    for (case, (name, value, _)), each in itertools.product(cases.items(), (model, twin)):
        each.create(external_id=case, **{name: value})

    def populate(self, data):
        name, _, change = cases[self.external_id]
        change(getattr(self, name))
        if besides:
            self.integer = 7

    model.populate_from_api_response = populate
    for row in twin.select():
        populate(row, {})
        row.save()

    # When
    run = import_rows(model, [Row(case, {}) for case in cases], bare=True)

    # Then
    assert failures(run) == []
    assert differences(model, twin) == {}


# --- what no database is to keep --------------------------------------------------------------------------------------

NULL = "null NULL"
NUL = r"\u0000"
HALF = r"\ud800"
UNSTORABLE: Mapping[str, tuple[str, str, str]] = {
    "a NUL in a CharField": ("char", f'"a{NUL}"', "NUL"),
    "a NUL in a FixedCharField": ("fixed_char", f'"a{NUL}b"', "NUL"),
    "a NUL in a TextField": ("text", f'"{NUL}"', "NUL"),
    "a NUL in JSON": ("json", f'{{"a": ["{NUL}"]}}', "NUL"),
    "a NUL in a key of JSON": ("json", f'{{"a{NUL}": 1}}', "NUL"),
    "half a letter in a CharField": ("char", f'"a{HALF}"', "surrogate"),
    "half a letter in a TextField": ("text", f'"{HALF}"', "surrogate"),
    "half a letter in JSON": ("json", f'["{HALF}"]', "surrogate"),
    "half a letter in a key of JSON": ("json", f'{{"{HALF}": 1}}', "surrogate"),
    "infinity in a FloatField": ("float", '"Infinity"', "finite"),
    "minus infinity in a DoubleField": ("double", '"-inf"', "finite"),
    "no number in a FloatField": ("float", '"nan"', "finite"),
    "infinity in a DecimalField": ("decimal", '"Infinity"', "finite"),
    "no number in a DecimalField": ("wide_decimal", '"NaN"', "finite"),
    "infinity in an IntegerField": ("integer", sent_as_text("Infinity"), "finite"),
    "infinity in a TextField": ("text", sent_as_text("Infinity"), "finite"),
    "infinity in JSON": ("json", sent_as_text('{"a": [Infinity]}'), "finite"),
    "no number in JSON": ("json", sent_as_text('[{"a": NaN}]'), "finite"),
}


@pytest.mark.parametrize("bare", [False, True], ids=["list", "detail"])
@pytest.mark.parametrize("together", [1, 100])
def test_what_no_database_is_to_keep_fails_its_item_with_a_reason_that_names_it(import_rows, bare, together):
    # Given rows with a NUL, half a letter or an infinite number, each between two good ones
    model, _ = make("thing", columns(here()), detailed=bare)
    rows = [Row(case, {name: Literal(spelled)}) for case, (name, spelled, _) in UNSTORABLE.items()]
    good = [Row(f"good {n}", {"text": "a"}) for n, _ in enumerate(rows)]
    both = [row for pair in zip(good, rows, strict=True) for row in pair]

    # When
    run = import_rows(model, both, bare=bare, together=together)

    # Then the good ones are written, and each other one failed by a reason that says what is in it
    assert completed(run) == {row.external_id for row in good}
    reasons = reasons_by_id(run)
    assert {c: reasons.get(c) for c, (_, _, word) in UNSTORABLE.items() if word not in (reasons.get(c) or "")} == {}
    assert {failure_class for failure_class, _ in failures(run)} == {FailureClass.BAD_DATA}
    kept = stored(model)
    assert {
        c: kept[c][name] for c, (name, _, _) in UNSTORABLE.items() if c in kept and (kept[c][name] or NULL) != NULL
    } == {}
    assert bare == (set(UNSTORABLE) <= set(kept))


def reasons_by_id(run: Run) -> dict[str, str]:
    failed = (RunItem.run_id == run.id) & (RunItem.status == ItemStatus.FAILED)
    return {item.external_id: item.failure_reason for item in RunItem.select().where(failed)}


def test_a_number_larger_than_a_float_fails_the_item_whose_detail_has_it(import_rows):
    # Given
    model, _ = make("thing", columns([KINDS["float"]]))
    rows = [Row("1", {"float": 1.5}), Row("2", {"float": Literal("1e400")}), Row("3", {"float": 1.5})]

    # When
    run = import_rows(model, rows, bare=True)

    # Then
    assert completed(run) == {"1", "3"}
    [(failure_class, reason)] = failures(run)
    assert failure_class == FailureClass.BAD_DATA
    assert "1e400" in reason


# --- numbers with many digits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", [False, True], ids=["list", "detail"])
def test_a_json_number_keeps_its_digits_in_a_decimal_column(import_rows, house, bare):
    # Given a price with more digits than a float has
    model, _ = make("thing", columns([KINDS["wide_decimal"]]), detailed=bare)

    # When
    run = import_rows(model, [Row("1", {"wide_decimal": Number("12345678901234567.89")})], bare=bare)

    # Then it is kept as it was sent; SQLite keeps the digits of a float
    assert failures(run) == []
    assert model.get().wide_decimal == Decimal("12345678901234568" if database.is_sqlite() else "12345678901234567.89")


# --- a row that its model cannot read ---------------------------------------------------------------------------------


def test_a_row_that_its_model_cannot_read_fails_alone(import_rows):
    # Given rows of which one holds what SQLite keeps and peewee cannot read, written by another program
    model, _ = make("thing", columns([KINDS["decimal"], KINDS["text"]]))
    if not database.is_sqlite():
        pytest.skip("Postgres keeps no text in a number's column")
    model.insert_many([{"external_id": str(n), "decimal": "abc" if n == 2 else "1.5"} for n in range(5)]).execute()

    # When
    run = import_rows(model, [Row(str(n), {"text": "new"}) for n in range(5)], bare=True)

    # Then
    assert completed(run) == {"0", "1", "3", "4"}
    [(failure_class, reason)] = failures(run)
    assert failure_class == FailureClass.BAD_DATA
    assert "InvalidOperation" in reason
