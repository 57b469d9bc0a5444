"""A lane that waits for a slow response keeps its lease, and those of its items, as long as a response can come."""

from datetime import timedelta
from typing import Any

import pytest

from workers import clock
from workers.engine import reaper
from workers.engine.lane_turn import Turn
from workers.records import claims, commits, lanes, runs
from workers.records.tables import ItemStatus, Lane, Run, RunItem, RunStatus
from workers.settings import get_settings


@pytest.fixture
def turn(import_from, moved_clock) -> Turn:
    import_from("http://127.0.0.1:1")
    now = clock.now()
    run = Run.create(
        status=RunStatus.RUNNING, source="items", lanes=1, created_by="me", total_count=3, discovered_at=now
    )
    for n in range(3):
        RunItem.create(run_id=run.id, external_id=str(n), item_id=str(n), item_type="items", due_at=now)
    ((run_id, lane, number),) = lanes.open_for(run.id, 1)
    assert lanes.start_turn(run_id, lane, number, get_settings().lane_lease_seconds)
    turn = Turn(runs.get(run.id), lane, number, 0)
    turn.claimed.take(3, get_settings().lease_seconds)
    return turn


def pass_time(turn: Turn, moved: Any, seconds: float) -> None:
    """Let time pass as the flusher sees it, and the reaper."""
    for _ in range(round(seconds)):
        moved.advance(1.0)
        turn.renew()
        assert lanes.silent(turn.run.id, get_settings().tick_seconds) == []


def test_a_lane_that_waits_for_an_answer_is_not_sent_again_nor_are_its_items(turn, moved_clock):
    turn._renewed_until = clock.monotonic() + 300

    pass_time(turn, moved_clock, 200)

    assert lanes.is_at(turn.run.id, turn.lane, turn.turn + 1)
    assert claims.claim(turn.run.id, 10, 60.0).items == []
    assert reaper.revive(runs.get(turn.run.id)) == 0
    assert {item.attempts for item in RunItem.select()} == {1}


def test_a_lane_whose_response_can_come_no_more_loses_its_leases(turn, moved_clock):
    turn._renewed_until = clock.monotonic() + 30

    for _ in range(400):
        moved_clock.advance(1.0)
        turn.renew()

    assert Lane.get().due_at < clock.now() - timedelta(seconds=get_settings().tick_seconds)
    assert len(claims.claim(turn.run.id, 10, 60.0).items) == 1  # each alone: one of them may be what it hangs at


def test_the_outcomes_of_a_renewed_lane_are_committed(turn, moved_clock):
    from workers.limiter.permits import Usage
    from workers.records.commits import Outcome

    turn._renewed_until = clock.monotonic() + 300
    pass_time(turn, moved_clock, 200)
    assert turn.claimed.claim is not None

    outcomes = [Outcome(item, ItemStatus.SKIPPED, reason="done") for item in turn.claimed.claim.items]
    commits.commit(turn.run.id, turn.claimed.claim, outcomes, Usage(), lambda rows: None)

    assert runs.get(turn.run.id).skipped_count == 3


def test_items_that_are_committed_are_not_claimed_anew_by_a_renewal(turn, moved_clock):
    from workers.records.commits import Outcome

    assert turn.claimed.claim is not None
    turn._renewed_until = clock.monotonic() + 300
    turn.claimed.outcomes.append(Outcome(turn.claimed.claim.items[0], ItemStatus.SKIPPED, reason="done"))
    turn.claimed.flush()
    pass_time(turn, moved_clock, 200)

    assert [item.status for item in RunItem.select().order_by(RunItem.id)] == ["skipped", "processing", "processing"]
