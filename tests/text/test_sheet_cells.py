"""Cells of failed.csv in a spreadsheet: ids stay text and can be passed to `--item`; no cell is a formula."""

import csv
import io
import itertools
import re

import pytest
from click.testing import CliRunner

from workers import clock
from workers.cli.command_line import cli
from workers.failures import FailureClass, fingerprint
from workers.monitor.readings import failed_csv
from workers.records import runs
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus
from workers.text import sheet_cell
from workers.text.sheet_cell import exact, harmless, read

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
KEPT = ["0", "1", "42", "123456789012345", "item-7", "a=b", "blue shirt", "é", "6f1c2a7e-0000-4000-8000-0123456789ab"]
MARKED = [
    *(
        "1234567890123456789",
        "00123",
        "007",
        "1E5",
        "1e5",
        "12e345678901",
        "3-4",
        "1/2",
        "1 1/2",
        "2026-12-01",
        "12:30",
    ),
    *("1.50", "1,000", "10%", "$5", "5 pm", "-1", "-1.5", "TRUE", "false", "wahr", "MAR1", "Sep-7", "1-Jan", "dez 24"),
    *("=1+1", "+1", "@a", "-x", "\t=1", "\r=1", " =1", "\n-a", "＝1", "\u200b=1", "\ufeff+1", '"=1+1', "#N/A", "(5)"),
    *(" a", "a ", "  a  ", "\ta", "'", "''=1", "~"),
]
SPLIT = ["a;=1+1", "a,+2", "x\t=3", "a; @b", 'a;"=1+1', "a,,-1", "a;'=1", "=1;=2", "a|=1", "a\n=1", "a\r\n+1"]
#: A sheet that splits at blanks makes a formula of these, and none of a dash between words.
BLANKS = ["limit =1+1", "a  -2+3", "is =cmd|' /C calc'!A0", "x @SUM(1)", "a '=1", "a ''+1", "one, two =3"]


@pytest.mark.parametrize("text", KEPT)
def test_an_id_that_a_spreadsheet_keeps_has_no_mark(text):
    assert exact(text) == read(text) == text


@pytest.mark.parametrize("text", MARKED)
def test_an_id_that_a_spreadsheet_would_change_has_one(text):
    assert exact(text).startswith("'")


@pytest.mark.parametrize(
    "text", [*KEPT, *MARKED, *SPLIT, *BLANKS, "a - b", "a,b;c", 'say "hi"', "two\nlines", "'a;'=1'", "a;''=1", "'00123"]
)
def test_an_id_is_read_back_as_it_was(text):
    assert read(exact(text)) == text


@pytest.mark.parametrize("cell", [exact, harmless])
@pytest.mark.parametrize("text", [*MARKED, *SPLIT, "GET answered 404; =cmd|' /C calc'!A0", 'x\t"@SUM(1)'])
def test_no_part_of_a_cell_begins_a_formula_wherever_it_is_split(cell, text):
    file = io.StringIO()
    csv.writer(file).writerow(["first", cell(text), "last"])

    for separators in (",", ";", "\t", "|", ",;\t|\r\n"):
        for part in re.split(f"[{re.escape(separators)}]", file.getvalue()):
            assert not re.match(r"[\s\"\u200b\ufeff]*[=+\-@＝＋－＠]", part), (separators, part)


@pytest.mark.parametrize("cell", [exact, harmless])
@pytest.mark.parametrize("text", BLANKS)
def test_no_part_of_a_cell_begins_a_formula_where_it_is_split_at_blanks(cell, text):
    for part in cell(text).split(" "):
        assert not re.match(r"[=+\-@]\S", part), part


def test_a_dash_between_words_is_no_formula():
    assert harmless("one - two, three") == "one - two, three"
    assert not sheet_cell._is_kept("１２３")  # digits of another script are changed


def _failed(ids):
    """Return a run with failed items of these ids."""
    run = runs.create("items", lanes=1, created_by="test", door="test")
    Run.update(status=RunStatus.COMPLETED, ended_at=clock.now(), discovered_at=clock.now()).where(
        Run.id == run.id
    ).execute()
    rows = [
        {
            "run_id": run.id,
            "external_id": one,
            "item_type": "item",
            "item_id": str(number),
            "status": ItemStatus.FAILED,
            "due_at": clock.now(),
            "failure_class": FailureClass.BAD_DATA,
            "failure_reason": "x; =1+1",
            "failure_fingerprint": fingerprint("bad_data", f"{'abcdefghij'[number % 10]}", ""),
        }
        for number, one in enumerate(ids)
    ]
    RunItem.insert_many(rows).execute()
    return run


@ON_SQLITE
def test_each_cell_of_the_file_comes_back_by_item(import_from):
    import_from("http://127.0.0.1:1")
    run = _failed([*KEPT, *MARKED, *SPLIT])

    found = list(csv.DictReader(io.StringIO("".join(failed_csv.csv_parts(run.id)).removeprefix("\ufeff"), newline="")))
    options = itertools.chain.from_iterable(("--item", row["external_id"]) for row in found)
    ended = CliRunner().invoke(cli, ["retry", str(run.id), *options], catch_exceptions=False)

    assert ended.exit_code in (0, None), ended.output
    assert not RunItem.select().where(RunItem.run_id == run.id, RunItem.status == ItemStatus.FAILED).exists()
    assert len(found) == len({row["external_id"] for row in found}) == len(KEPT + MARKED + SPLIT)
    assert {read(row["fingerprint"]) for row in found} == {
        item.failure_fingerprint for item in RunItem.select().where(RunItem.run_id == run.id)
    }


@ON_SQLITE
def test_a_marked_id_that_is_another_item_s_is_not_guessed(import_from):
    import_from("http://127.0.0.1:1")
    run = _failed(["'00123", "00123"])

    guessed = CliRunner().invoke(cli, ["retry", str(run.id), "--item", "'00123"], standalone_mode=False)
    assert "which failed.csv also writes as" in str(guessed.exception)

    for pasted in ("''00123", "00123"):
        CliRunner().invoke(cli, ["retry", str(run.id), "--item", pasted], catch_exceptions=False)
    assert not RunItem.select().where(RunItem.status == ItemStatus.FAILED).exists()
