"""Failures that differ only in an id, a number or a quoted value have the same fingerprint, at any length."""

import peewee
import pytest

from tests.helpers import model_imports
from workers.connections import database
from workers.failures import REASON_LENGTH
from workers.records.tables import ItemStatus, RunItem
from workers.reports.failure_groups import failure_groups


def _thing():
    class Meta:
        database = database.db
        table_name = "things"

    fields = {"external_id": peewee.CharField(unique=True), "note": peewee.TextField(default=""), "Meta": Meta}
    return type("Thing", (model_imports.Detailed, peewee.Model), fields)


LONG = "x" * 460
#: What a model's method raises, for an id: the cut at 500 characters falls elsewhere for each id.
MESSAGES = {
    "the id is before the cut": lambda one: f"{one} {LONG} and this is cut in its midst, for it is long",
    "the id is at the cut": lambda one: f"{LONG} {one} is not known to the shop that was asked for it",
    "a quoted value is cut": lambda one: f"not a price: '{'9' * (400 + 40 * int(one))}'",
    "a quoted value is longer than all that is looked at": lambda one: f"not a price: '{'a b ' * (3_000 + int(one))}'",
    "the reason is short": lambda one: f"no row for {one}",
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_failures_that_differ_in_their_ids_are_one_group(message, import_from):
    ids = ["1", "22", "333", "4444", "55"]

    def refuse(self, data):
        raise ValueError(message(self.external_id))

    thing = _thing()
    thing.populate_from_api_response = refuse
    with model_imports.serving([[{"external_id": one} for one in ids]], {one: {"note": "n"} for one in ids}) as api:
        model_imports.register(thing, api.url)
        run = model_imports.imported()

    failed = list(RunItem.select().where(RunItem.run_id == run.id, RunItem.status == ItemStatus.FAILED))
    assert len(failed) == 5
    assert all(len(item.failure_reason) <= REASON_LENGTH for item in failed)
    assert [group.count for group in failure_groups(run.id)] == [5]


def test_failures_that_differ_in_a_word_before_the_cut_are_two_groups(import_from):
    def refuse(self, data):
        raise ValueError(f"can't be {'sold' if self.external_id < '3' else 'moved'}: {LONG}")

    thing = _thing()
    thing.populate_from_api_response = refuse
    with model_imports.serving(
        [[{"external_id": one} for one in "1234"]], {one: {"note": "n"} for one in "1234"}
    ) as api:
        model_imports.register(thing, api.url)
        run = model_imports.imported()

    assert [group.count for group in failure_groups(run.id)] == [2, 2]
