"""A run of a source that a worker does not know waits for a worker that knows it, and spends no attempt."""

import pytest

from workers.connections import database
from workers.control import runner
from workers.engine import reaper
from workers.engine.actors import ACTORS
from workers.engine.unknown_source import LATER_SECONDS, SOON_SECONDS
from workers.errors import UnknownSource
from workers.messaging import broker, process_heartbeat
from workers.records import items, lanes, runs
from workers.records.tables import ItemStatus, Lane, Run, RunItem, RunStatus
from workers.sources import registry

ANN = {"who": "ann", "door": "test"}


@pytest.fixture
def sent(moved_clock, import_from):
    """What this thread sends, as (name, args, delay)."""
    import_from("http://127.0.0.1:1")
    messages = []
    with broker.captured(lambda *message: messages.append(message)):
        yield messages


@pytest.fixture
def newcomer(sent):
    """Makes a run of a source that was added after this process had started."""

    def make(reads_list=False, open_items=1, **values):
        run = runner.start("items", send=False, **ANN)
        if not reads_list:
            item = {"external_id": "1", "item_id": "1", "due_at": database.now(), "status": ItemStatus.PENDING}
            items.add(run.id, [item] * open_items)
            values |= {"total_count": 1, "discovered_at": database.now(), "discovery_due_at": None}
            lanes.open_for(run.id, 1)
        Run.update(source="newcomer", **values).where(Run.id == run.id).execute()
        sent.clear()
        return runs.get(run.id)

    return make


def call(name, *args):
    ACTORS[name][0](*args)


def know_the_source():
    registry.get_registry()._sources["newcomer"] = registry.get_registry()["items"]


@pytest.fixture(params=[True, False], ids=["another worker knows it", "none knows it"])
def wait(request, house):
    """How long a message waits, by what another worker knows."""
    process_heartbeat.Heartbeat("worker", sources=["newcomer"] if request.param else ["items"]).write()
    return SOON_SECONDS if request.param else LATER_SECONDS


def test_a_lane_is_left_to_others_once_and_worked_by_who_knows_it(newcomer, sent, wait, moved_clock):
    run = newcomer()

    # When its message comes, and comes twice
    call("fetch_details", run.id, 0, 1)
    call("fetch_details", run.id, 0, 1)

    # Then it is sent once, later, and the run is as it was
    assert sent == [("fetch_details", (run.id, 0, 2), wait)]
    assert (runs.get(run.id).status, RunItem.get().attempts) == (RunStatus.RUNNING, 0)

    # And a worker that knows the source works it
    moved_clock.advance(wait)
    know_the_source()
    call("fetch_details", run.id, 0, 2)
    assert RunItem.get().attempts == 1


def test_a_list_page_is_left_to_others_once_and_read_by_who_knows_it(newcomer, sent, wait, moved_clock):
    run = newcomer(reads_list=True)

    call("discover", run.id)
    if wait == LATER_SECONDS:  # in half a second it is due again
        call("discover", run.id)

    assert sent == [("discover", (run.id,), wait)]
    left = runs.get(run.id)
    assert (left.status, left.discovery_attempts, left.error_summary) == (RunStatus.RUNNING, 0, None)

    moved_clock.advance(wait)
    know_the_source()
    call("discover", run.id)
    assert runs.get(run.id).discovery_attempts == 1


def test_the_reaper_sends_no_second_message_of_a_run_that_waits_for_a_worker_that_knows_it(newcomer, moved_clock, sent):
    # Given a lane that was left to others
    run = newcomer()
    worker = process_heartbeat.Heartbeat("worker", sources=["items"])
    worker.write()
    call("fetch_details", run.id, 0, 1)

    # When the reaper runs all the while, and the message is left again and again
    for turn in range(2, 8):
        for _ in range(3):
            moved_clock.advance(5)
            reaper.reap()
        worker.write()
        call("fetch_details", run.id, 0, turn)

    # Then there was one message at a time
    assert [message[:2] for message in sent] == [("fetch_details", (run.id, 0, turn)) for turn in range(2, 9)]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_ends_without_its_source_unless_rows_are_to_be_removed(newcomer, fresh):
    run = newcomer(open_items=0, options={"fresh": fresh})

    call("finalize", run.id)

    assert runs.get(run.id).status == (RunStatus.RUNNING if fresh else RunStatus.COMPLETED)


@pytest.mark.parametrize("change", [{"status": RunStatus.CANCELLED}, {"lanes": 0}])
def test_a_lane_that_is_not_needed_any_more_ends_without_the_source(newcomer, sent, change):
    run = newcomer(**change)

    call("fetch_details", run.id, 0, 1)

    assert (Lane.get().due_at, sent) == (None, [])


@pytest.mark.parametrize("state", [{"reads_list": True, "status": RunStatus.PAUSED}, {}], ids=["paused", "list read"])
def test_a_list_that_is_not_to_be_read_sends_no_message(newcomer, sent, state):
    run = newcomer(**state)

    call("discover", run.id)

    assert sent == []


def test_a_run_of_a_source_that_was_removed_can_be_cancelled(newcomer):
    run = newcomer()
    call("fetch_details", run.id, 0, 1)

    runner.cancel(run.id, **ANN)

    assert runs.get(run.id).status == RunStatus.CANCELLED


def test_an_inline_run_of_an_unknown_source_is_refused_with_the_known_ones(newcomer):
    run = newcomer()

    with pytest.raises(UnknownSource) as refused:
        runner.run_inline(run)

    assert refused.value.known == ("items",)
