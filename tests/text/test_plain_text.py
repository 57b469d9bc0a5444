"""Control, invisible and line-breaking characters never reach the log, the terminal or the page."""

import io
import json
import logging
import subprocess
import sys
import unicodedata

import pytest
from click.testing import CliRunner
from peewee import CharField, Model

from tests.helpers import model_imports
from workers.cli.command_line import cli
from workers.connections import database
from workers.log import JsonLines, Lines
from workers.monitor.html import markup
from workers.monitor.html.markdown import plain
from workers.monitor.readings import failed_csv
from workers.records.tables import Run, RunEvent, RunItem
from workers.text.plain_text import block, lines, one_line

CHARACTERS = {
    "a newline": "\n",
    "a carriage return": "\r",
    "a tab": "\t",
    "NUL": "\0",
    "an escape sequence": "\x1b[2J\x1b]0;t\x07",
    "C1: a sequence's beginning": "\x9b31m",
    "C1: next line": "\x85",
    "delete": "\x7f",
    "a line separator": "\u2028",
    "a paragraph separator": "\u2029",
    "a bidi override": "\u202e",
    "a bidi isolate": "\u2067",
    "an Arabic letter mark": "\u061c",
    "a zero-width space": "\u200b",
    "a zero-width joiner": "\u200d",
    "a byte order mark": "\ufeff",
    "a soft hyphen": "\xad",
    "a tag": "\U000e0041",
    "a Hangul filler": "\u3164",
    "half a surrogate pair": "\ud800",
}
STEERING = "".join(CHARACTERS.values())


def steers(text, but=""):
    """Return the characters of a text that steer, or are not seen."""
    bad = {one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") or one == "\u3164"}
    return bad - set(but)


def test_the_characters_are_those_that_unicode_calls_controls_and_formats():
    everything = map(chr, range(0x110000))
    left = {one for one in everything if steers(one) and one_line(one) == one}

    # The signs that stand before a number in Arabic, Syriac and Kaithi, and those of hieroglyphs, are seen
    assert {f"{ord(one):04x}" for one in left if not 0x13430 <= ord(one) <= 0x1343F} == {
        *(f"{number:04x}" for number in range(0x600, 0x606)),
        *("06dd", "070f", "0890", "0891", "08e2", "110bd", "110cd"),
    }
    assert one_line("Füße, 鍵, ключ, ❤\ufe0f – 5 % · 1 000") == "Füße, 鍵, ключ, ❤\ufe0f – 5 % · 1 000"


@pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
def test_each_way_out_cleans_each_character(character):
    text = f"before{character}12:00:00 ERROR forged"
    error = ValueError(text)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "said %s", (text,), (ValueError, error, None))
    logged = Lines("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S").format(record)

    assert not steers(logged, but="\n")
    assert not [line for line in logged.splitlines()[1:] if not line.startswith("  ")]
    as_json = JsonLines().format(record)
    assert len(as_json.splitlines()) == 1 and as_json.isascii()
    assert not steers("".join(map(str, json.loads(as_json).values())), but="\n")
    assert not steers(one_line(text)) and not steers(plain(text))
    assert not steers(lines(text), but="\n") and not steers(block(text), but="\n")
    assert not steers(markup.fill("<p>{text}</p>", text=text) + markup.prose(f"`{text}`"), but="\n")


def test_what_nobody_caught_is_logged_clean(environment):
    program = (
        "from workers import log; from workers.text import redaction; log.set_up(); redaction.hide('K-12345678'); "
        "raise RuntimeError('the key K-12345678\\n12:00:00 ERROR forged \\x1b[2J')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ended.returncode == 1 and "the key ***" in ended.stderr and "this process ends" in ended.stderr
    assert not steers(ended.stderr, but="\n")
    assert not [line for line in ended.stderr.splitlines() if line.startswith("12:00:00 ERROR forged")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_an_api_says_leaves_no_door_with_such_a_character(import_from):
    class Thing(model_imports.Detailed, Model):
        external_id = CharField(unique=True)

        class Meta:
            database = database.db
            table_name = "things"

    seen = STEERING.replace("\0", "").replace("\ud800", "")
    said = json.dumps({"message": f"forged{seen}12:00:00 ERROR no"})
    ids = [f"a{one}b" for one in dict.fromkeys(seen)]
    with model_imports.serving([[{"external_id": one} for one in ids]], {}) as api:
        model_imports.register(Thing, api.url)
        api.details = dict.fromkeys(ids, said)
        Thing.populate_from_api_response = lambda self, data: (_ for _ in ()).throw(ValueError(data["message"]))
        log = io.StringIO()
        handler = logging.StreamHandler(log)
        handler.setFormatter(Lines("%(message)s"))
        logging.getLogger().addHandler(handler)
        run = model_imports.imported()
        logging.getLogger("x").error("%s", json.loads(said)["message"])
        logging.getLogger().removeHandler(handler)

    assert run.failed_count == len(ids)
    stored = [item.failure_reason for item in RunItem.select()]
    stored += [event.detail or "" for event in RunEvent.select()] + [one.error_summary or "" for one in Run.select()]
    assert all("forged" in reason for reason in stored[: len(ids)])
    assert not steers("".join(stored))
    for words in (["status"], ["status", str(run.id)], ["status", str(run.id), "--failed"], ["budgets"]):
        printed = CliRunner().invoke(cli, words, catch_exceptions=False).output
        assert not steers(printed, but="\n"), words
        assert not [line for line in printed.splitlines() if line.startswith("12:00:00")], words
    assert not steers(log.getvalue(), but="\n")
    reasons = [row.split(",", 6)[6] for row in "".join(failed_csv.csv_parts(run.id)).split("\r\n") if "forged" in row]
    assert len(reasons) == len(ids) and not steers("".join(reasons))
