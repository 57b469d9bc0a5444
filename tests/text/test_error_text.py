"""An exception whose message cannot be read is described, logged and stored like any other."""

import json
import logging

import pytest

from workers.errors import RetryableError
from workers.failures import storable_reason
from workers.log import JsonLines, Lines
from workers.messaging.recent_errors import _Copies
from workers.text.error_text import UNREADABLE, describe, message_of, traceback_of


def _raising(raised):
    def __str__(self):
        raise raised

    return type("Odd", (RetryableError,), {"__str__": __str__, "__repr__": __str__})()


class _NoText(ValueError):
    __str__ = int  # which is no text


class _Sub(str):
    def strip(self):
        raise RuntimeError("never")


class _OddText(ValueError):
    def __str__(self):
        return _Sub("a sub of text")


class _OddNotes(ValueError):
    @property
    def __notes__(self):
        raise RuntimeError("no notes")


UNREADABLES = {
    "__str__ raises": _raising(ValueError("inner")),
    "__str__ raises itself": _raising(RecursionError()),
    "__str__ ends the process": _raising(SystemExit(1)),
    "__str__ returns a number": _NoText(),
    "an argument's repr raises": ValueError(_raising(KeyError("k")), 2),
}


@pytest.mark.parametrize("error", UNREADABLES.values(), ids=UNREADABLES)
def test_an_unreadable_message_is_said_to_be_one(error):
    assert message_of(error) == UNREADABLE
    assert describe(error) == f"{type(error).__name__}: {UNREADABLE}"
    assert storable_reason(message_of(error)) == UNREADABLE
    assert type(error).__name__ in traceback_of(error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError(), "ValueError"),
        (ValueError("  \n "), "ValueError"),
        (KeyError("sku"), "KeyError: 'sku'"),
        (_OddText(), "_OddText: a sub of text"),
        (_OddNotes("x"), "_OddNotes: x"),
        (ValueError("password=hunter22"), "ValueError: password=***"),
        (ValueError("x" * 5_000), f"ValueError: {'x' * 2_000}"),
    ],
)
def test_a_readable_message_is_described_by_its_first_line(error, said):
    assert describe(error) == said
    assert type(error).__name__ in traceback_of(error)


@pytest.mark.parametrize("error", [*UNREADABLES.values(), _OddNotes("x")], ids=[*UNREADABLES, "notes"])
@pytest.mark.parametrize("how", ["as the message", "in its arguments", "as the exception"])
def test_each_way_to_log_it_leaves_a_line(error, how):
    message, arguments = ("%s", (error,)) if how == "in its arguments" else ("run 7: item 3", ())
    message = error if how == "as the message" else message
    raised = (type(error), error, None) if how == "as the exception" else None
    record = logging.LogRecord("workers.x", logging.ERROR, "x.py", 1, message, arguments, raised)

    lines = Lines("%(levelname)s %(message)s").format(record)
    as_json = json.loads(JsonLines().format(record))
    kept = _Copies(None).prepare(record)

    assert lines.startswith("ERROR ")
    assert lines != "ERROR " and ("run 7: item 3" in lines or type(error).__name__ in lines or lines == "ERROR x")
    assert as_json["level"] == "ERROR" and isinstance(as_json["message"], str)
    assert isinstance(kept.text, str) and kept.text


def test_a_message_whose_arguments_do_not_fit_is_logged_with_its_template():
    record = logging.LogRecord("workers.x", logging.ERROR, "x.py", 1, "%d of %s", ("one",), None)

    assert "%d of %s" in Lines("%(message)s").format(record)
