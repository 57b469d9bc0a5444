"""A turn of a lane reads its run's row once; discovery reads it once a message, not once a page."""

import logging
import re

import pytest

from workers.control import runner
from workers.engine import detail, discovery
from workers.messaging import broker
from workers.records import lanes, runs
from workers.records.tables import Run

#: A query of a run by its id; the row that an UPDATE returns does not count.
_READS_A_RUN = re.compile(r'SELECT [^()]* FROM "sluice_runs" AS "t1" WHERE \("t1"."id" = ')


@pytest.fixture
def reads(house, caplog):
    """Return how often a run was read since this was called last."""
    caplog.set_level(logging.DEBUG, logger="peewee")

    def since_last_call():
        statements = [record.msg[0] for record in caplog.records if record.name == "peewee"]
        caplog.clear()
        return len([sql for sql in statements if _READS_A_RUN.match(sql)])

    return since_last_call


@pytest.fixture
def start(mock_api, import_from):
    """Start a run of items whose messages are worked here; return its id."""

    def start(count):
        import_from(mock_api(items=count).url)
        run_id = runner.start("items", who="test", door="test", send=False).id
        Run.update(lanes=2).where(Run.id == run_id).execute()
        return run_id

    with broker.captured(lambda *_: None):
        yield start


@pytest.mark.parametrize("pages", [1, 2])
def test_discovery_reads_its_run_as_often_for_one_page_as_for_two(start, reads, pages, house):
    house.setenv("SLUICE_TURN_SECONDS", "60")
    run_id = start(pages * 100)
    reads()

    discovery.discover(run_id)

    # Then: for the message, for the lanes after the last page, and in the first lane's turn, which follows
    assert reads() == 3
    assert runs.get(run_id).succeeded_count == pages * 100


@pytest.mark.parametrize("lane", [0, 1])
def test_a_turn_reads_its_run_once(start, reads, lane, house):
    house.setenv("SLUICE_TURN_SECONDS", "0.01")  # so the first lane leaves most items
    run_id = start(40)
    discovery.discover(run_id)
    messages = lanes.open_for(run_id, 2)
    house.setenv("SLUICE_TURN_SECONDS", "1")
    done = runs.get(run_id).succeeded_count
    reads()

    detail.fetch_details(*messages[lane])

    assert reads() == 1
    assert runs.get(run_id).succeeded_count > done


def test_a_duplicate_message_reads_no_run(start, reads):
    run_id = start(1)
    lanes.open_for(run_id, 2)
    reads()

    detail.fetch_details(run_id, 0, 0)

    assert reads() == 0
