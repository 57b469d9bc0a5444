"""The reaper, the scheduler and the consumers serve every run, whatever the queue holds and whatever ails one of them.

Real Redis, both databases, one of whose rows refuses to be written; time is moved.
"""

import dramatiq
import peewee
import pytest
import redis

from workers import settings
from workers.connections import database
from workers.control import runner
from workers.engine import reaper
from workers.messaging import broker, process_heartbeat
from workers.processes import scheduler
from workers.records import items, lanes, retention, runs
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus

QUEUE = broker.QUEUE
ANN = {"who": "ann", "door": "test"}


@pytest.fixture
def on_redis(moved_clock, house, import_from, redis_server):
    """A registered source whose API is never asked, and a broker on Redis; its client."""
    house.setenv("SLUICE_BROKER_URL", redis_server)
    import_from("http://127.0.0.1:1")
    with redis.Redis.from_url(redis_server) as client:
        yield client


@pytest.fixture
def sent(moved_clock, import_from):
    """What this thread sends, as (name, args)."""
    import_from("http://127.0.0.1:1")
    messages = []
    with broker.captured(lambda name, args, delay: messages.append((name, args))):
        yield messages


def a_run(tenant, kind):
    """A run whose next message was lost: one for its list, its lane, its end or its start."""
    if kind == "scheduled":
        return runner.schedule("items", database.now() + lanes.timedelta(seconds=1), tenant=tenant, **ANN)
    run = runner.start("items", tenant=tenant, send=False, **ANN)
    if kind == "start":
        behind = runner.start("items", tenant=tenant, send=False, **ANN)
        Run.update(status=RunStatus.CANCELLED).where(Run.id == run.id).execute()
        return behind
    if kind != "list":
        open_items = [{"external_id": "1", "item_id": "1", "due_at": database.now(), "status": ItemStatus.PENDING}]
        items.add(run.id, open_items if kind == "lane" else [])
        found = {"total_count": 1, "discovered_at": database.now(), "discovery_due_at": None}
        Run.update(**found).where(Run.id == run.id).execute()
    if kind == "lane":
        lanes.open_for(run.id, 1)
    return runs.get(run.id)


def message_of(run, kind):
    """The name of the message that a run of this kind needs."""
    return {
        "list": f"discover:{run.id}",
        "start": f"discover:{run.id}",
        "scheduled": f"discover:{run.id}",
        "lane": f"fetch_details:{run.id}:0:1",
        "end": f"finalize:{run.id}",
    }[kind]


KINDS = ["list", "lane", "end", "start", "scheduled"]


def waiting(number):
    for n in range(number):
        broker.send("finalize", 10_000 + n)


def delayed(number):
    for n in range(number):
        broker.send("fetch_details", 10_000 + n, 0, 1, delay_seconds=80_000)


def held_by_a_killed_worker(number):
    delayed(number)
    dead = broker.make_broker(settings.get_settings().broker)
    assert len(dead.do_fetch(f"{QUEUE}.DQ", number)) == number


@pytest.mark.parametrize("crowd", [waiting, delayed, held_by_a_killed_worker])
def test_what_was_lost_is_sent_again_though_1200_messages_of_other_runs_are_there(on_redis, moved_clock, crowd):
    # Given a run of each kind whose message was lost, and the messages of other runs
    lost = {kind: a_run(kind, kind) for kind in KINDS}
    crowd(1_200)

    # When the scheduler ticks, a lane's time and a tick later
    moved_clock.advance(11)
    assert scheduler.tick()

    # Then each is in the queue
    assert {message_of(run, kind) for kind, run in lost.items()} <= set(broker.waiting())


def test_a_pass_that_has_sent_enough_goes_on_with_the_runs_behind(sent, moved_clock):
    # Given a run of 1,024 silent lanes before another that lost its only message
    large, small = a_run("large", "lane"), a_run("small", "list")
    lanes.open_for(large.id, 1_024)
    moved_clock.advance(11)

    # When the reaper looks twice, and the large one was silent again
    reaper.reap()
    first = len(sent)
    moved_clock.advance(60)
    reaper.reap()

    # Then the small one came first
    assert first == 1_024
    assert sent[first] == ("discover", (small.id,))
    assert len(sent) == 2 * 1_024 + 1


def refuse(table, column, run):
    """Let the database refuse every change of the rows of a run."""
    if database.is_sqlite():
        database.db.execute_sql(
            f"CREATE TRIGGER poison BEFORE UPDATE ON {table} WHEN OLD.{column} = {run.id} "
            "BEGIN SELECT RAISE(ABORT, 'poison'); END"
        )
        return
    database.db.execute_sql(
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'poison'; END $$"
    )
    database.db.execute_sql(
        f"CREATE TRIGGER poison BEFORE UPDATE ON {table} FOR EACH ROW WHEN (OLD.{column} = {run.id}) "
        "EXECUTE FUNCTION poison()"
    )


POISONED = {
    "its lanes cannot be written": ("lane", lambda run: refuse("sluice_lanes", "run_id", run)),
    "it cannot be started": ("start", lambda run: refuse("sluice_runs", "id", run)),
    "it cannot be taken out of the schedule": ("scheduled", lambda run: refuse("sluice_runs", "id", run)),
}


@pytest.mark.parametrize("poison", POISONED)
def test_a_run_whose_rows_the_database_refuses_keeps_no_other_from_its_turn(sent, moved_clock, caplog, poison):
    # Given a run that cannot be written, before one of each kind
    kind, refused = POISONED[poison]
    refused(a_run("bad", kind))
    others = {kind: a_run(kind, kind) for kind in KINDS}
    sent.clear()

    # When the scheduler ticks
    moved_clock.advance(11)
    went_well = scheduler.tick()

    # Then each of the others is served, and the log says what is the matter, without a traceback
    names = {":".join(map(str, (name, *args))) for name, args in sent}
    assert {message_of(run, kind) for kind, run in others.items()} <= names
    lines = [record for record in caplog.records if "poison" in record.getMessage()]
    if not (
        database.is_sqlite() and kind == "start"
    ):  # there a trigger refuses as the unique index of active runs does
        assert not went_well
        assert [record.exc_info for record in lines] == [None]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # Postgres stores instants only
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_whose_row_cannot_be_read_keeps_no_other_from_its_turn(sent, moved_clock, kind):
    # Given a run with a broken row, before one of each kind
    bad = a_run("bad", kind)
    database.db.execute_sql(f"UPDATE sluice_runs SET created_at = 'no instant' WHERE id = {bad.id}")
    others = {kind: a_run(kind, kind) for kind in KINDS}
    sent.clear()

    # When the scheduler ticks
    moved_clock.advance(11)
    scheduler.tick()

    # Then each of the others is served
    names = {":".join(map(str, (name, *args))) for name, args in sent}
    assert {message_of(run, kind) for kind, run in others.items()} <= names


def test_an_old_run_that_cannot_be_removed_keeps_no_other_from_going(sent, moved_clock, caplog):
    # Given three runs that ended long ago, the first of which cannot be written
    ended = [a_run(name, "lane") for name in ("bad", "b", "c")]
    long_ago = database.now() - lanes.timedelta(days=40)
    for n, run in enumerate(ended):
        at = long_ago + lanes.timedelta(seconds=n)
        Run.update(status=RunStatus.CANCELLED, ended_at=at).where(Run.id == run.id).execute()
    refuse("sluice_runs", "id", ended[0])

    # When the scheduler ticks, or a person prunes
    assert not scheduler.tick()
    with pytest.raises(peewee.PeeweeException, match="poison"):
        retention.prune(items_days=30, runs_days=0)

    # Then the items of the others are gone, and the log has said why not the first one's
    assert {item.run_id for item in RunItem.select()} == {ended[0].id}
    assert "poison" in caplog.text


# --- unreadable messages, and the messages of a killed worker


@pytest.fixture
def steady(environment, moved_clock, redis_server):
    """A broker on Redis whose consumers are asked by hand, in time that is moved."""
    made = broker.make_broker(redis_server)
    made.declare_queue(QUEUE)
    return made


@pytest.mark.parametrize("data", [b"no json", b"[1]", b"{}", b'{"queue_name": "sluice"}', b"\xff\x00"])
@pytest.mark.parametrize("queue", [QUEUE, f"{QUEUE}.DQ"])
def test_a_message_that_cannot_be_read_becomes_a_dead_letter_and_stops_no_other(
    steady, moved_clock, caplog, data, queue
):
    # Given such a message before a good one
    steady.do_enqueue(queue, "bad", data)
    good = dramatiq.Message(QUEUE, "finalize", (1,), {}, {})
    steady.enqueue(good, delay=60_000 if queue != QUEUE else None)

    # When the queue is consumed, and looked after
    consumer = steady.consume(queue, prefetch=8, timeout=1)
    assert next(consumer).args == (1,)
    for _ in range(3):
        moved_clock.advance(11)
        assert next(consumer) is None

    # Then it came once, is kept apart, and the log has said so once
    assert steady.client.hgetall(f"{steady.namespace}:{QUEUE}.XQ.msgs") == {b"bad": data}
    assert len([line for line in caplog.messages if "message bad cannot be read" in line]) == 1
    assert {name.rpartition(":")[0] for name in steady.assigned(queue)} == {"finalize:1"}


def test_what_a_killed_worker_had_is_fetched_by_another_within_25_seconds(steady, moved_clock, redis_server):
    # Given 1,200 delayed messages in the hands of a worker that is killed, and one that has just looked for such
    dead = broker.make_broker(redis_server)
    dead.declare_queue(QUEUE)
    for n in range(1_200):
        dead.enqueue(dramatiq.Message(QUEUE, "fetch_details", (n, 0, 1), {}, {}), delay=60_000)
    assert len(dead.do_fetch(f"{QUEUE}.DQ", 1_200)) == 1_200
    consumer = steady.consume(f"{QUEUE}.DQ", prefetch=2_000, timeout=1)
    assert next(consumer) is None

    # When the last heartbeat of the killed one is 20 s old, and the other looks again
    dead.client.zincrby(f"{dead.namespace}:__heartbeats__", -20_001, dead.broker_id)
    assert next(consumer) is None
    moved_clock.advance(5.001)
    fetched = {next(consumer).args for _ in range(1_200)}

    # Then it has them all
    assert fetched == {(n, 0, 1) for n in range(1_200)}
    assert dead.assigned(f"{QUEUE}.DQ") == set()


@pytest.mark.parametrize(
    ("workers", "is_unknown"),
    [
        ([], False),
        ([["items"]], True),
        ([["items"], ["newcomer"]], False),
        ([["items"], None], False),
        ([[]], True),
        ([[f"source-{n}" for n in range(1001)]], False),  # too many to say
    ],
)
def test_whether_a_worker_knows_a_source_is_said_by_the_workers(house, workers, is_unknown):
    for names in workers:
        process_heartbeat.Heartbeat("worker", sources=names).write()
    process_heartbeat.Heartbeat("scheduler").write()

    assert process_heartbeat.no_worker_knows("newcomer") is is_unknown
