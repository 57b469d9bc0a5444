"""Runs, items and lanes on both databases: counts are exact, and nothing is done twice."""

import threading
from datetime import timedelta

import peewee
import pytest

from models import Item
from workers import InvalidTransition, UnknownRun, clock
from workers.connections import database
from workers.limiter.permits import Usage
from workers.records import (
    activation,
    claims,
    commits,
    cursor,
    failed_items,
    items,
    lanes,
    run_completion,
    runs,
    schema,
)
from workers.records.commits import Outcome
from workers.records.migrations import __path__ as migrations_path
from workers.records.tables import TABLES, TRANSITIONS, ItemStatus, Run, RunEvent, RunItem, RunStatus


def a_run(count=0, **options):
    run = runs.create("items", lanes=4, created_by="test", door="test", **options)
    activation.activate(run.id)
    now = database.now()
    rows = [
        {"external_id": str(n), "item_id": str(n), "due_at": now, "status": ItemStatus.PENDING} for n in range(count)
    ]
    items.add(run.id, rows)
    Run.update(total_count=count, discovered_at=now).where(Run.id == run.id).execute()
    return runs.get(run.id)


def complete(run, claim, save=lambda models: None):
    outcomes = [Outcome(item, ItemStatus.COMPLETED) for item in claim.items]
    return commits.commit(run.id, claim, outcomes, Usage(), save)


def test_many_threads_claim_every_item_exactly_once(house):
    # Given 200 due items
    run = a_run(200)
    claimed, lock = [], threading.Lock()

    # When eight threads claim until nothing is left
    def claim_all():
        with database.connection():
            while batch := claims.claim(run.id, 7, lease_seconds=60).items:
                with lock:
                    claimed.extend(item.id for item in batch)

    threads = [threading.Thread(target=claim_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then each was claimed once
    assert len(claimed) == len(set(claimed)) == 200


def test_a_commit_counts_only_what_is_still_ours(house):
    # Given three claimed items, one of which another lane has claimed since
    run = a_run(3)
    claim = claims.claim(run.id, 3, lease_seconds=60)
    stolen = claim.items[1]
    RunItem.update(due_at=claim.until + timedelta(seconds=5)).where(RunItem.id == stolen.id).execute()

    # When the first claimer commits, twice
    complete(run, claim)
    complete(run, claim)

    # Then two are counted, once
    run = runs.get(run.id)
    assert run.succeeded_count == 2
    assert RunItem.get_by_id(stolen.id).status == ItemStatus.PROCESSING


def test_an_item_whose_lease_ran_out_is_claimed_alone(house):
    # Given a claim of two items whose lease expired, and a third item that is due
    run = a_run(3)
    claims.claim(run.id, 2, lease_seconds=-1)

    # When items are claimed again
    first, second, third = (claims.claim(run.id, 10, lease_seconds=60).items for _ in range(3))

    # Then each of the two comes alone, with its attempt counted, before the rest
    assert [len(first), len(second), len(third)] == [1, 1, 1]
    assert [first[0].attempts, second[0].attempts, third[0].attempts] == [2, 2, 1]


def test_an_item_that_lost_two_leases_is_claimed_while_no_other_such_one_is_in_hand(house):
    # Given three items that were lost twice with the processes that had them, and a fourth that is due
    run = a_run(4)
    for _ in range(2):
        RunItem.update(status=ItemStatus.PENDING, due_at=database.now()).where(RunItem.external_id != "3").execute()
        RunItem.update(due_at=database.now() + timedelta(seconds=60)).where(RunItem.external_id == "3").execute()
        claims.claim(run.id, 3, lease_seconds=-1)
    RunItem.update(due_at=database.now()).where(RunItem.external_id == "3").execute()

    # When lanes claim
    first, second, third = (claims.claim(run.id, 10, lease_seconds=60) for _ in range(3))

    # Then one of the three is claimed at a time, and the others do not keep lanes from items that are due
    assert [[item.attempts for item in claim.items] for claim in (first, second, third)] == [[3], [1], []]
    complete(run, first)
    assert [item.attempts for item in claims.claim(run.id, 10, lease_seconds=60).items] == [3]


def test_items_given_back_are_due_at_once_and_have_their_attempt_refunded(house):
    run = a_run(2)
    claim = claims.claim(run.id, 2, lease_seconds=60)

    assert claims.give_back(claim, claim.items) == 2
    assert claims.give_back(claim, claim.items) == 0

    assert {item.attempts for item in RunItem.select()} == {0}
    assert len(claims.claim(run.id, 2, lease_seconds=60).items) == 2


def test_a_row_that_cannot_be_saved_fails_alone(house):
    # Given three items whose batch cannot be saved because of the second
    run = a_run(3)
    claim = claims.claim(run.id, 3, lease_seconds=60)

    def save(models):
        if any(model.name == "second" for model in models):
            raise peewee.IntegrityError("price must not be null")

    outcomes = [
        Outcome(item, ItemStatus.COMPLETED, model=Item(name=name))
        for item, name in zip(claim.items, ("first", "second", "third"), strict=True)
    ]

    # When they are committed
    commits.commit(run.id, claim, outcomes, Usage(), save)

    # Then the other two are in
    run = runs.get(run.id)
    assert (run.succeeded_count, run.failed_count) == (2, 1)
    assert "price must not be null" in RunItem.get(RunItem.status == ItemStatus.FAILED).failure_reason


def test_a_run_is_not_completed_while_an_item_can_change(house):
    run = a_run(1)
    claim = claims.claim(run.id, 1, lease_seconds=60)
    assert not run_completion.complete_if_done(run.id)

    complete(run, claim)

    assert run_completion.complete_if_done(run.id)
    assert not run_completion.complete_if_done(run.id)
    assert runs.get(run.id).ended_at is not None


def test_finalize_waits_for_a_transaction_that_opens_an_item_again(house):
    # Given a run whose only item has failed, and another connection that has just made it pending, uncommitted
    run = a_run(1)
    claim = claims.claim(run.id, 1, lease_seconds=60)
    commits.commit(run.id, claim, [Outcome(claim.items[0], ItemStatus.FAILED)], Usage(), lambda models: None)
    opened, finished, results = threading.Event(), threading.Event(), []

    def reopen():
        with database.connection(), database.db.atomic():
            failed_items.reopen(run.id)
            opened.set()
            finished.wait(0.3)

    def finalize():
        opened.wait()
        with database.connection():
            results.append(run_completion.complete_if_done(run.id))

    # When finalize looks meanwhile
    threads = [threading.Thread(target=reopen), threading.Thread(target=finalize)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then it saw the pending item
    assert results == [False]
    assert runs.get(run.id).status == RunStatus.RUNNING


def test_two_racing_list_pages_are_one(house):
    # Given a claimed list page that another process has claimed since
    run = runs.create("items", lanes=1, created_by="test", door="test")
    activation.activate(run.id)
    first = cursor.begin_page(run.id, lease_seconds=-1)
    second = cursor.begin_page(run.id, lease_seconds=60)

    # When both come to write
    with cursor.page_commit(first) as ours_first:
        pass
    with cursor.page_commit(second) as ours_second:
        cursor.end_page(second, {}, Usage(), cursor=2)

    # Then only the second may
    assert (ours_first, ours_second) == (False, True)
    assert runs.get(run.id).discovery_cursor == 2


def test_a_lane_s_turn_begins_once_whatever_is_delivered_twice(house):
    run = a_run()
    (message,) = lanes.open_for(run.id, 1)

    assert lanes.start_turn(*message, lease_seconds=60)
    assert not lanes.start_turn(*message, lease_seconds=60)


def test_a_rewound_turn_may_begin_again_and_an_overtaken_one_may_not(house):
    run = a_run()
    run_id, lane, turn = lanes.open_for(run.id, 1)[0]
    lanes.start_turn(run_id, lane, turn, 60)
    assert lanes.rewind(run_id, lane, turn, 3)
    assert lanes.start_turn(run_id, lane, turn, 60)

    # The lane is woken meanwhile
    woken = lanes.open_for(run.id, 1)[0]

    assert not lanes.rewind(run_id, lane, turn, 3)
    assert not lanes.end_turn(run_id, lane, turn + 1, 3)
    assert lanes.start_turn(*woken, lease_seconds=60)


def test_a_silent_lane_is_sent_again_with_the_turn_it_had(house):
    run = a_run()
    (message,) = lanes.open_for(run.id, 1)

    assert lanes.silent(run.id, for_seconds=60) == []
    assert lanes.silent(run.id, for_seconds=-1) == [message]


def test_only_one_run_of_a_source_and_tenant_is_active(house):
    # Given many pending runs of one source, without a tenant
    made = [runs.create("items", lanes=1, created_by="test", door="test") for _ in range(6)]
    started, lock = [], threading.Lock()

    # When threads start them all at once
    def start(run):
        with database.connection():
            took = activation.activate(run.id)
        with lock:
            started.append(took)

    threads = [threading.Thread(target=start, args=(run,)) for run in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then one of them runs
    assert started.count(True) == 1


def refuse_running_north():
    """Add a constraint of the user's own to the table of runs: none of the source `north` is ever running."""
    if database.is_sqlite():
        database.db.execute_sql(
            "CREATE TRIGGER no_north BEFORE UPDATE ON sluice_runs WHEN NEW.status = 'running' AND NEW.source = 'north' "
            "BEGIN SELECT RAISE(ABORT, 'no_north'); END"
        )
    else:
        database.db.execute_sql(
            "ALTER TABLE sluice_runs ADD CONSTRAINT no_north CHECK (NOT (status = 'running' AND source = 'north'))"
        )


def test_activation_raises_an_integrity_error_that_is_not_of_the_one_active_run(house):
    # Given
    refuse_running_north()
    made = {"lanes": 1, "created_by": "test", "door": "test"}
    runs_of = {name: [runs.create(name, **made) for _ in "ab"] for name in ("north", "south")}

    # Then another active run is an answer, and another constraint is an error
    assert [activation.activate(run.id) for run in runs_of["south"]] == [True, False]
    with pytest.raises(peewee.IntegrityError, match="no_north"):
        activation.activate(runs_of["north"][0].id)
    assert runs.get(runs_of["north"][0].id).status == RunStatus.PENDING


@pytest.mark.parametrize("status", list(RunStatus))
@pytest.mark.parametrize("to", [RunStatus.PAUSED, RunStatus.CANCELLED, RunStatus.FAILED, RunStatus.PENDING])
def test_a_run_moves_only_where_the_table_of_transitions_says(house, status, to):
    run = a_run()
    Run.update(status=status).where(Run.id == run.id).execute()

    if (status, to) in TRANSITIONS:
        runs.move(run.id, to, who="ann", door="test")
        assert runs.get(run.id).status == to
        last = RunEvent.select().order_by(RunEvent.id.desc()).get()
        assert (last.what, last.who) == (to.value, "ann")
    else:
        said = f"is already {status}" if status == to else f"is {status} and cannot become {to}"
        with pytest.raises(InvalidTransition, match=said):
            runs.move(run.id, to, who="ann", door="test")


def test_an_unknown_run_is_said_to_be_unknown(house):
    with pytest.raises(UnknownRun, match="There is no run 4711"):
        runs.get(4711)


def test_instants_are_kept_in_utc_to_the_microsecond_and_naive_ones_are_refused(house):
    run = a_run()
    at = clock.now().replace(microsecond=123456)
    Run.update(ended_at=at).where(Run.id == run.id).execute()

    assert runs.get(run.id).ended_at == at
    with pytest.raises(ValueError, match="UTC-aware"):
        Run.update(ended_at=at.replace(tzinfo=None)).where(Run.id == run.id).execute()


def test_the_migrations_make_the_tables_that_the_code_declares(house):
    for table in TABLES:
        declared = {field.column_name for field in table._meta.sorted_fields}
        assert {column.name for column in database.db.get_columns(table._meta.table_name)} == declared
        names = {index.name for index in database.db.get_indexes(table._meta.table_name)}
        assert {
            index._name or index.name for index in table._meta.fields_to_index() if hasattr(index, "_name")
        } <= names


def test_many_processes_may_migrate_at_once(environment, redis_server, database_url):
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    errors = []

    def migrate():
        try:
            schema.migrate()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert schema.is_migrated()
    assert list(migrations_path)
