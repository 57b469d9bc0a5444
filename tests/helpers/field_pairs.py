"""Compare writers: a random model and batch, written together by the package and row by row by the driver."""

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tests.helpers.field_kinds import KINDS, Kind, here, stored
from tests.helpers.field_rows import Row, insert_alone, is_readable, make, plain, update_alone
from workers.connections import database
from workers.records import changed_fields, loaded_rows, upserts

#: Writes a batch into a table as the package does; returns the external ids of the rows that cannot be saved.
Writer = Callable[[Any, Sequence[Row]], set[str]]


@dataclass(frozen=True)
class Column:
    """One column of a pair's model.

    Parameters:
      kind(str): Of `KINDS`.
      null(bool): Whether it may be NULL.
      default(str | None): The case that is its default.
    """

    kind: str
    null: bool
    default: str | None

    def make(self) -> Any:
        options = {"default": copy.deepcopy(KINDS[self.kind].values[self.default])} if self.default else {}
        return KINDS[self.kind].make(null=self.null, **options)


@dataclass(frozen=True)
class Pair:
    """A model, the rows that are in its table before, and the batch.

    Parameters:
      columns(dict[str, Column]): By name.
      before(Sequence[Row]): Rows that are there.
      batch(Sequence[Row]): What comes.
      detail(bool): Whether the batch changes loaded rows; else it is a list page, of new and known rows.
    """

    columns: dict[str, Column]
    before: Sequence[Row]
    batch: Sequence[Row]
    detail: bool

    def __str__(self) -> str:
        lines = [f"    {name} = {column}" for name, column in self.columns.items()]
        lines += [f"    is there: {row.external_id} {row.given}" for row in self.before]
        lines += [f"    {'detail' if self.detail else 'listed'}: {row.external_id} {row.given}" for row in self.batch]
        return "\n".join(lines)


# --- made at random ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """The cases of a kind in the database in use: those that its driver takes, and those that it refuses."""

    taken: Sequence[str]
    refused: Sequence[str]


def judge(kinds: Iterable[Kind]) -> dict[str, Known]:
    """Sort the cases of each kind. What is kept and cannot be read again is left out: no driver judges it."""
    return {kind.name: _judge(kind) for kind in kinds}


def _judge(kind: Kind) -> Known:
    _, twin = make(f"one_{kind.name}", {kind.name: lambda: kind.make(null=True)})
    taken, refused = [], []
    for case, value in kind.cases.items():
        row = Row(case, {kind.name: value})
        if insert_alone(twin, row):
            refused.append(case)
        elif is_readable(twin, row):
            taken.append(case)
    return Known(taken, refused)


def make_pair(seed: str, known: dict[str, Known]) -> Pair:
    """Return the pair of a seed."""
    chance = random.Random(seed)
    names = chance.choices(sorted(known), k=chance.randint(1, 30))
    columns = {f"{name}__{at}": _column(chance, name, known[name]) for at, name in enumerate(names)}
    size = chance.choice((1, 2, chance.randint(3, 60), chance.randint(3, 60)))
    detail = chance.random() < 0.5
    there = size if detail else chance.choice((0, size, chance.randint(0, size)))
    wrong, partial = chance.choice((0.0, 0.0, 0.01, 0.1)), chance.random() < 0.5
    before = [Row(str(n), _given(chance, columns, known, 0.0, False)) for n in range(there)]
    batch = [Row(str(n), _given(chance, columns, known, wrong, partial)) for n in range(size)]
    chance.shuffle(batch)
    return Pair(columns, before, batch, detail)


def _column(chance: random.Random, name: str, known: Known) -> Column:
    values = [case for case in known.taken if case != "null"]
    default = chance.choice(values) if values and chance.random() < 0.3 else None
    return Column(name, not values or chance.random() < 0.7, default)


def _given(
    chance: random.Random, columns: dict[str, Column], known: dict[str, Known], wrong: float, partial: bool
) -> dict[str, Any]:
    some = {name: column for name, column in columns.items() if not partial or chance.random() < 0.7}
    return {name: _value(chance, column, known[column.kind], wrong) for name, column in some.items()}


def _value(chance: random.Random, column: Column, known: Known, wrong: float) -> Any:
    if chance.random() < wrong and (known.refused or not column.null):
        return KINDS[column.kind].cases[chance.choice([*known.refused, *(() if column.null else ("null",))])]
    if column.null and chance.random() < 0.2:
        return None
    return KINDS[column.kind].cases[chance.choice([c for c in known.taken if c != "null" or column.null])]


# --- written both ways ------------------------------------------------------------------------------------------------


def package_list(model: Any, rows: Sequence[Row]) -> set[str]:
    """Write a list page with the package: all rows together, or one by one where that fails."""
    changed_fields.prepare(model)
    instances, refused = {}, set()
    for row in rows:
        try:
            instances[row.external_id] = model(external_id=row.external_id, **plain(row.given))
        except Exception:
            refused.add(row.external_id)
    return refused | _together_or_alone(instances, lambda some: upserts.upsert(model, some, "external_id"))


def package_detail(model: Any, rows: Sequence[Row]) -> set[str]:
    """Fill loaded rows and save them with the package: all together, or one by one where that fails."""
    keys = dict(model.select(model.external_id, model.id).tuples())
    loaded = loaded_rows.load(model, list(keys.values()), "external_id")
    instances, refused = {}, set()
    for row in rows:
        instance = loaded[keys[row.external_id]]
        try:
            for column, value in plain(row.given).items():
                setattr(instance, column, value)
            instances[row.external_id] = instance
        except Exception:
            refused.add(row.external_id)
    return refused | _together_or_alone(instances, loaded_rows.save_fields)


def _together_or_alone(instances: dict[str, Any], save: Callable[[list[Any]], object]) -> set[str]:
    try:
        with database.db.atomic():
            save(list(instances.values()))
        return set()
    except Exception:
        refused = {external_id for external_id, instance in instances.items() if not _is_saved(instance, save)}
        if not refused:
            raise
        return refused


def _is_saved(instance: Any, save: Callable[[list[Any]], object]) -> bool:
    with suppress(Exception), database.db.atomic():
        save([instance])
        return True
    return False


def driver(twin: Any, rows: Sequence[Row]) -> set[str]:
    """Write rows one by one with the driver; return those that it refuses."""
    return {row.external_id for row in rows if _driver(twin, row)}


def _driver(twin: Any, row: Row) -> Exception | None:
    known = twin.select().where(twin.external_id == row.external_id).exists()
    return (update_alone if known else insert_alone)(twin, row)


def differences(pair: Pair, by_list: Writer = package_list, by_detail: Writer = package_detail) -> list[str]:
    """Write a pair both ways, into two tables of the database in use; return where they differ, as sentences."""
    model, twin = make("pair", {name: column.make for name, column in pair.columns.items()})
    try:
        refused = [driver(each, pair.before) for each in (twin, model)]
        assert refused == [set(), set()] or pair.before == []
        expected = driver(twin, pair.batch)
        try:
            found = (by_detail if pair.detail else by_list)(model, pair.batch)
        except Exception as error:
            return [f"the batch fails, though each of its rows is taken alone: {type(error).__name__}: {error}"]
        return [*_refusals(expected, found), *_values(stored(twin), stored(model))]
    finally:
        for each in (model, twin):
            each.drop_table()


def _refusals(expected: set[str], found: set[str]) -> Iterator[str]:
    for external_id in sorted(expected - found):
        yield f"row {external_id} is taken; the driver refuses it"
    for external_id in sorted(found - expected):
        yield f"row {external_id} is refused; the driver takes it"


def _values(expected: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> Iterator[str]:
    for external_id in sorted(expected.keys() ^ found.keys()):
        yield f"row {external_id} is in one table only"
    for external_id in sorted(expected.keys() & found.keys()):
        for name, value in expected[external_id].items():
            ours = found[external_id][name]
            if value != ours:
                yield f"row {external_id}: {name} holds {ours!r}; by the driver {value!r}"


# --- the smallest case ------------------------------------------------------------------------------------------------


def shrink(pair: Pair, differs: Callable[[Pair], object]) -> Pair:
    """Return a pair as small as can be that still differs: rows are left out, then columns, then given values."""
    for smaller in (_fewer_rows, _fewer_columns, _fewer_values):
        again = True
        while again:
            found = next((each for each in smaller(pair) if _still(each, differs)), None)
            again, pair = found is not None, found or pair
    return pair


def _still(pair: Pair, differs: Callable[[Pair], object]) -> bool:
    try:
        return bool(differs(pair))
    except AssertionError:
        return False


def _fewer_rows(pair: Pair) -> Iterator[Pair]:
    half = len(pair.batch) // 2
    parts = [pair.batch[:half], pair.batch[half:]] if half else []
    parts += [[*pair.batch[:at], *pair.batch[at + 1 :]] for at in range(len(pair.batch)) if len(pair.batch) > 1]
    for batch in parts:
        ids = {row.external_id for row in batch}
        yield replace(pair, batch=batch, before=[row for row in pair.before if row.external_id in ids])


def _fewer_columns(pair: Pair) -> Iterator[Pair]:
    for name in pair.columns:
        columns = {each: column for each, column in pair.columns.items() if each != name}
        if columns:
            yield replace(pair, columns=columns, before=_without(pair.before, name), batch=_without(pair.batch, name))


def _fewer_values(pair: Pair) -> Iterator[Pair]:
    for row in pair.batch:
        for name in row.given:
            yield replace(pair, batch=[*_without([row], name), *(other for other in pair.batch if other is not row)])


def _without(rows: Sequence[Row], name: str) -> list[Row]:
    return [Row(row.external_id, {n: value for n, value in row.given.items() if n != name}) for row in rows]


def examine(seeds: Iterable[str], say: Callable[[str], None] = lambda text: None) -> tuple[int, int, list[str]]:
    """Try the pairs of some seeds in the database in use.

    Returns:
      tuple[int, int, list[str]]: How many pairs and rows were tried, and a report of each pair that differs.
    """
    known = judge(here())
    pairs = rows = 0
    reports = []
    for seed in seeds:
        pair = make_pair(seed, known)
        pairs, rows = pairs + 1, rows + len(pair.batch)
        if differences(pair):
            smallest = shrink(pair, differences)
            reports.append(
                f"pair {seed} differs. The smallest case:\n{smallest}\n    {'; '.join(differences(smallest))}"
            )
            say(reports[-1])
    return pairs, rows, reports
