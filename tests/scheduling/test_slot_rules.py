"""Decide: the rules of a schedule as a table of cases, and that deciding twice comes to nothing more.

Times are of May 2026, UTC: "12:00" is of the 4th, "5 12:00" of the 5th, "3-29 01:00" of March. A row is its slot and
its status, then what is odd about it: "at 13:30" (a person moved it), "on 11:00" (it was cancelled then), "retried" (it
had begun before).
"""

import random
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.helpers.schedule_rows import LATE_SECONDS, at, described, perform, row, said, schedule, seen
from workers.cron import Cron
from workers.errors import UsageError
from workers.records.tables import Run
from workers.scheduling.slot_rules import MOST_ROWS, Cancel, Make, Skip, decide

#: The case; now, the rows and what is said of the schedule, which is "0 */3 * * *", UTC, latest, since 09:30 otherwise;
#: what is to be done.
TABLE = """
# rule 1: exactly one future run
a new schedule gets a run for its next slot
    10:00 | no row
    -> make 12:00
a schedule that has it is left alone
    10:00 | 12:00 scheduled
    -> nothing
it is left alone until the last microsecond
    11:59:59.999999 | 12:00 scheduled
    -> nothing
made at a slot's very instant, it begins with the next
    12:00 | no row | since: 12:00
    -> make 15:00
made a little after a slot, too
    12:00:0.5 | no row | since: 12:00:0.5
    -> make 15:00
after a run that completed
    13:00 | 12:00 completed
    -> make 15:00
after one that failed
    13:00 | 12:00 failed
    -> make 15:00
after one that was cancelled
    13:00 | 12:00 cancelled
    -> make 15:00
while one runs
    13:00 | 12:00 running
    -> make 15:00
while one is held by a person
    13:00 | 12:00 paused
    -> make 15:00
while one waits for its turn
    13:00 | 12:00 pending
    -> make 15:00
a future run that a person cancelled is not made again
    10:00 | 12:00 cancelled
    -> make 15:00
nor are two
    10:00 | 12:00 cancelled, 15:00 cancelled
    -> make 18:00
its slot passes, and it gets no run
    12:00:5 | 12:00 cancelled, 15:00 scheduled
    -> nothing
a schedule that comes once in four years
    5 10:00 | no row | cron: 0 0 29 2 *; since: 1-1 00:00
    -> make 2028-2-29 00:00

# runs that a person moved
a run pulled forward is extra
    10:00 | 12:00 running at 10:00
    -> make 15:00
one that is to be pulled forward in a moment
    10:00 | 12:00 scheduled at 10:00
    -> make 15:00
one pulled forward that waits
    10:00:5 | 12:00 pending at 10:00
    -> make 15:00
one that ended before its slot
    12:00 | 12:00 completed at 10:00, 15:00 scheduled
    -> nothing
one put off is left alone when its slot comes
    12:00 | 12:00 scheduled at 13:30, 15:00 scheduled
    -> nothing
and when its time comes
    13:31 | 12:00 scheduled at 13:30, 15:00 scheduled
    -> nothing
one put off beyond the next
    15:00 | 12:00 scheduled at 16:00, 15:00 scheduled
    -> begin 15:00, make 18:00
one put off onto the next slot
    15:00 | 12:00 scheduled at 15:00, 15:00 scheduled
    -> begin 15:00, make 18:00
one that waits is not overtaken
    12:00 | 9:00 pending at 10:00, 12:00 scheduled
    -> begin 12:00, make 15:00
several that were moved
    10:00 | 12:00 scheduled at 11:00, 15:00 scheduled at 11:30
    -> make 18:00

# rule 2: what is due begins
a run begins at its very second
    12:00 | 12:00 scheduled
    -> begin 12:00, make 15:00
overdue by a second
    12:00:1 | 12:00 scheduled
    -> begin 12:00, make 15:00
overdue by almost a period
    14:59:59 | 12:00 scheduled
    -> begin 12:00, make 15:00
a slot that no row was made for begins, too
    12:00:1 | 9:00 completed
    -> make 12:00 due, make 15:00
behind one that runs it begins all the same
    12:00 | 9:00 running, 12:00 scheduled
    -> begin 12:00, make 15:00

# rule 3: of several overdue ones, by the schedule's choice
a night of downtime: the newest
    5 07:00 | 21:00 scheduled
    -> cancel 21:00: overtaken by 5 06:00, skip 5 00:00: overtaken by 5 06:00,
       skip 5 03:00: overtaken by 5 06:00, make 5 06:00 due, make 5 09:00
a night of downtime: none
    5 04:00 | 21:00 scheduled | catch_up: none
    -> cancel 21:00: missed, skip 5 00:00: missed, skip 5 03:00: missed, make 5 06:00
a night of downtime: all
    5 04:00 | 21:00 scheduled | catch_up: all
    -> begin 21:00, make 5 00:00 due, make 5 03:00 due, make 5 06:00
a night of downtime that ends in time for a slot: none but that
    5 00:00:30 | 21:00 scheduled | catch_up: none
    -> cancel 21:00: overtaken by 5 00:00, make 5 00:00 due, make 5 03:00
late by exactly the threshold is on time
    12:01 | 12:00 scheduled | catch_up: none
    -> begin 12:00, make 15:00
a microsecond more is not
    12:01:0.000001 | 12:00 scheduled | catch_up: none
    -> cancel 12:00: missed, make 15:00
of two that are on time only the newest
    12:01 | 12:00 scheduled | cron: * * * * *; catch_up: none
    -> cancel 12:00: overtaken by 12:01, make 12:01 due, make 12:02
lateness is nothing to the others
    12:01:0.000001 | 12:00 scheduled
    -> begin 12:00, make 15:00
one that waits is overtaken
    15:00 | 12:00 pending, 15:00 scheduled
    -> cancel 12:00: overtaken by 15:00, begin 15:00, make 18:00
under none, too
    15:00 | 12:00 pending, 15:00 scheduled | catch_up: none
    -> cancel 12:00: overtaken by 15:00, begin 15:00, make 18:00
but not by one that is missed itself
    15:02 | 12:00 pending, 15:00 scheduled | catch_up: none
    -> cancel 15:00: missed, make 18:00
under all they wait together
    15:00 | 12:00 pending, 15:00 scheduled | catch_up: all
    -> begin 15:00, make 18:00
several that wait, since all were to run
    15:00 | 9:00 pending, 12:00 pending, 15:00 scheduled
    -> cancel 09:00: overtaken by 15:00, cancel 12:00: overtaken by 15:00, begin 15:00, make 18:00
a retry that waits had begun, and is left
    12:00 | 9:00 pending retried, 12:00 scheduled
    -> begin 12:00, make 15:00
one that runs is left
    15:00 | 12:00 running, 15:00 scheduled
    -> begin 15:00, make 18:00
one that a person cancelled in the night leaves no second row
    5 04:00 | 21:00 cancelled, 5 00:00 scheduled | catch_up: all
    -> begin 5 00:00, make 5 03:00 due, make 5 06:00
one that a person put off into the night
    5 04:00 | 21:00 scheduled at 22:00, 5 00:00 scheduled
    -> cancel 5 00:00: overtaken by 5 03:00, make 5 03:00 due, make 5 06:00
all of nothing
    10:00 | no row | catch_up: all
    -> make 12:00
all of them were pulled forward, and the rows before have been removed for their age: those had come
    10:00 | 06:00 completed at 05:00, 09:00 completed at 08:00, 12:00 scheduled | since: 1 00:00
    -> nothing

# changed, paused, resumed
an edited schedule moves its future run
    9:45 | 12:00 scheduled | cron: 30 * * * *
    -> move 12:00 to 10:30
to later, too
    9:45 | 12:00 scheduled | cron: 0 0 * * *
    -> move 12:00 to 5 00:00
another timezone moves it
    9:45 | 12:00 scheduled | zone: Europe/Paris
    -> move 12:00 to 10:00
edited while a run is due: that begins
    12:00:3 | 12:00 scheduled | cron: 30 * * * *; since: 12:00:3
    -> begin 12:00, make 12:30
not onto a slot that has had its run
    9:45 | 10:30 completed at 9:00, 12:00 scheduled | cron: 30 * * * *
    -> move 12:00 to 11:30
edited, and down beyond a slot that a person had cancelled: those before it are not forgotten
    15:05 | 14:10 scheduled, 15:00 cancelled on 13:55 | cron: */20 * * * *; since: 14:00
    -> cancel 14:10: overtaken by 14:40, skip 14:20: overtaken by 14:40, make 14:40 due, make 15:20
edited, and down beyond one that a person had pulled forward
    15:05 | 14:20 scheduled, 15:00 completed at 13:55 | cron: */20 * * * *; since: 14:00; catch_up: all
    -> begin 14:20, make 14:40 due, make 15:20
a paused schedule has no future run
    10:00 | 12:00 scheduled | paused: 10:00
    -> cancel 12:00: its schedule is paused
paused with one overdue
    12:01 | 12:00 scheduled | paused: 12:01
    -> cancel 12:00: its schedule is paused
paused, its other runs continue
    12:01 | 9:00 running, 12:00 pending, 15:00 scheduled at 13:00 | paused: 12:01
    -> nothing
paused for long, nothing comes of it
    9 12:01 | no row | paused: 12:01
    -> nothing
resumed, it continues with the next slot
    5 10:00 | 9:00 completed | since: 5 10:00
    -> make 5 12:00
resumed under all, what passed is not made up for
    5 13:00 | 9:00 completed | catch_up: all; since: 5 10:00
    -> make 5 12:00 due, make 5 15:00
a slot at the instant of `since` is none of it
    15:00 | no row | catch_up: all; since: 12:00
    -> make 15:00 due, make 18:00

# the clock
set back an hour
    11:30 | 12:00 completed, 15:00 scheduled
    -> nothing
set back a day, before it was made
    3 11:30 | 10:00 completed, 11:00 completed, 12:00 scheduled | cron: 0 * * * *
    -> move 12:00 to 3 12:00
set back a day, and all slots since had a row
    3 11:30 | 3 12:00 failed, 00:00 cancelled, 12:00 failed, 5 00:00 scheduled | cron: 0 0,12 * * *; since: 3 00:00
    -> nothing
set back behind `since`: it continues from there
    10:30 | 13:00 scheduled | cron: 0 * * * *; since: 12:30
    -> move 13:00 to 11:00
set back while one waits: that is not overtaken by an older one
    12:00 | 13:00 pending, 12:00 scheduled | cron: 0 * * * *
    -> begin 12:00, make 14:00
set forward a month: the newest
    6-4 07:00 | 11 00:00 scheduled | cron: 0 0 * * 1; since: 1 00:00
    -> cancel 11 00:00: overtaken by 6-1 00:00, skip 18 00:00: overtaken by 6-1 00:00,
       skip 25 00:00: overtaken by 6-1 00:00, make 6-1 00:00 due, make 6-8 00:00
and back again: on with the first slot that has no row
    5 07:00 | 00:00 failed, 11 00:00 cancelled, 18 00:00 failed, 25 00:00 scheduled | cron: 0 0 * * 1; since: 1 00:00
    -> nothing

# the days on which clocks are moved
Paris leaps: 02:30 comes at 03:00
    3-28 12:00 | no row | zone: Europe/Paris; cron: 30 2 * * *; since: 3-28 12:00
    -> make 3-29 01:00
Paris leaps: down over it, the slot is made up for
    3-29 05:00 | no row | zone: Europe/Paris; cron: 30 2 * * *; since: 3-28 12:00
    -> make 3-29 01:00 due, make 3-30 00:30
Paris leaps: every third hour
    3-28 23:30 | 3-28 23:00 completed | zone: Europe/Paris; since: 3-28 23:30
    -> make 3-29 01:00
Paris falls back: the first 02:30
    10-25 00:00 | no row | zone: Europe/Paris; cron: 30 2 * * *; since: 10-24 12:00
    -> make 10-25 00:30
Paris falls back: not the second
    10-25 01:00 | 10-25 00:30 completed | zone: Europe/Paris; cron: 30 2 * * *; since: 10-24 12:00
    -> make 10-26 01:30
Paris falls back: 02:00 twice where each hour counts
    10-25 01:10 | no row | zone: Europe/Paris; cron: 0 * * * *; catch_up: all; since: 10-24 23:30
    -> make 10-25 00:00 due, make 10-25 01:00 due, make 10-25 02:00
New York leaps
    3-8 07:00 | 3-8 07:00 scheduled | zone: America/New_York; cron: 30 2 * * *; since: 3-7 12:00
    -> begin 3-8 07:00, make 3-9 06:30
New York falls back: not the second 01:30
    11-1 06:00 | 11-1 05:30 completed | zone: America/New_York; cron: 30 1 * * *; since: 10-31 12:00
    -> make 11-2 06:30
Lord Howe leaps half an hour
    10-3 15:00 | no row | zone: Australia/Lord_Howe; cron: 15 2 * * *; since: 10-3 12:00
    -> make 10-3 15:30
Lord Howe falls back half an hour: the first 01:45
    4-4 15:00 | 4-4 14:45 completed | zone: Australia/Lord_Howe; cron: 45 1 * * *; since: 4-4 12:00
    -> make 4-5 15:15
Lord Howe falls back: no third hour is missed
    4-4 20:00 | no row | zone: Australia/Lord_Howe; catch_up: all; since: 4-4 14:00
    -> make 4-4 16:30 due, make 4-4 19:30 due, make 4-4 22:30
"""


def cases() -> list[Any]:
    """Read the table."""
    read = list(_cases())
    assert len(read) == TABLE.count("->") > 40, "a case cannot be read"
    return read


def _cases() -> Iterator[Any]:
    for name, given, then in re.findall(r"^(\w.*)\n    (.*)\n    -> (.*(?:\n {7}.*)*)", TABLE, re.MULTILINE):
        now, rows, *has = given.split(" | ")
        said_of_it = dict(word.split(": ") for word in ("; ".join(has)).split("; ") if word)
        texts = [] if rows == "no row" else rows.split(", ")
        actions = [] if then == "nothing" else re.split(r",\s+", then)
        yield pytest.param(said_of_it, texts, now, actions, id=name)


@pytest.mark.parametrize(("has", "rows", "now", "then"), cases())
def test_the_table(has, rows, now, then):
    # Given a schedule and its rows
    ours, runs = schedule(**has), [row(number, text) for number, text in enumerate(rows, 1)]

    # When it is decided, then that is what is to be done
    actions = decide(ours, seen(runs, at(now)), at(now), LATE_SECONDS)
    assert [described(action, runs) for action in actions] == then

    # And when it is done, nothing is left to do
    perform(ours, runs, actions)
    assert decide(ours, seen(runs, at(now)), at(now), LATE_SECONDS) == []


def test_reasons_are_sentences_for_people():
    runs = [row(1, "9:00 scheduled")]
    [latest, *_] = decide(schedule(), runs, at("12:00"), LATE_SECONDS)
    [none, *_] = decide(schedule(catch_up="none"), runs, at("12:02"), LATE_SECONDS)
    assert latest == Cancel(1, "overtaken by the run of 2026-05-04 12:00 UTC")
    assert none == Cancel(1, "missed: no scheduler ran then, and none is made up for")


def test_a_pause_frees_the_slot_so_that_resuming_before_it_brings_it_back():
    # Given a schedule that is paused
    ours, runs = schedule(paused="10:00"), [row(1, "12:00 scheduled")]
    perform(ours, runs, decide(ours, seen(runs, at("10:00")), at("10:00"), LATE_SECONDS))

    # When it is resumed before the slot, then that has its run
    ours.paused_at, ours.since = None, at("10:20")
    assert decide(ours, seen(runs, at("10:20")), at("10:20"), LATE_SECONDS) == [Make(at("12:00"))]


@pytest.mark.parametrize(("catch_up", "begun"), [("latest", 1), ("none", 1), ("all", MOST_ROWS)])
def test_of_very_many_missed_slots_the_newest_leave_rows_and_the_oldest_row_tells_of_the_others(catch_up, begun):
    # Given minutes of more than a day
    ours = schedule("* * * * *", catch_up=catch_up, since="2 00:00")
    actions = decide(ours, [], at("4 12:00:5"), LATE_SECONDS)

    # Then the newest are kept, the last one begins, and the future run is made
    slots = [action.slot for action in actions]
    assert slots == [at("12:01") - timedelta(minutes=minutes) for minutes in reversed(range(MOST_ROWS + 2))]
    assert [action.due for action in actions if isinstance(action, Make)] == [True] * begun + [False]
    assert actions[0].reason.endswith("so were those before it, which have no row")
    assert sum("those before it" in action.reason for action in actions if isinstance(action, Skip)) == 1


def test_slots_of_more_than_a_year_ago_are_forgotten():
    ours = schedule("0 0 1 * *", catch_up="all", since="1 00:00")
    ours.since = at("1 00:00") - timedelta(days=2_000)
    made = decide(ours, [], at("4 00:00"), LATE_SECONDS)
    assert [action.slot.year for action in made] == [2025] * 9 + [2026] * 6


def test_a_schedule_that_cannot_be_read_is_refused_and_a_paused_one_is_not_read():
    with pytest.raises(UsageError):
        decide(schedule("every day"), [], at("10:00"), LATE_SECONDS)
    with pytest.raises(UsageError):
        decide(schedule(zone="Mars/Olympus"), [], at("10:00"), LATE_SECONDS)
    assert decide(schedule("every day", paused="9:00"), [], at("10:00"), LATE_SECONDS) == []


def test_two_tenants_have_schedules_of_their_own():
    # Given one source for two tenants, of which one runs; then each is decided by its own rows
    mine, theirs = schedule(), schedule(catch_up="all")
    theirs.id, mine.tenant, theirs.tenant = 2, "north", "south"
    assert decide(mine, [row(1, "9:00 running")], at("12:00"), 60) == [Make(at("12:00"), due=True), Make(at("15:00"))]
    assert decide(theirs, [row(2, "12:00 completed")], at("12:00"), 60) == [Make(at("15:00"))]


def test_whatever_the_rows_deciding_again_comes_to_nothing():
    # Given rows of any kind around any instant, also on days on which clocks are moved
    chance = random.Random(7)
    moments = [at("12:00"), at("3-29 01:00"), at("11-1 06:00"), at("4-4 15:00")]
    for _ in range(250):
        ours = schedule(
            chance.choice(["0 */3 * * *", "*/20 * * * *", "30 1,2 * * *"]),
            chance.choice(["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"]),
            chance.choice(["latest", "none", "all"]),
        )
        now = chance.choice(moments) + timedelta(seconds=chance.randint(-7_200, 7_200))
        ours.since = now - timedelta(hours=chance.randint(0, 12))
        runs: list[Run] = []
        for slot in Cron(ours.cron, ours.timezone).between(now - timedelta(hours=8), now + timedelta(hours=8), 40):
            status = chance.choice([None, "pending", "running", "completed", "cancelled", "scheduled"])
            if status:
                odd = "" if status != "scheduled" else f" at {said(now + timedelta(hours=chance.randint(-3, 3)))}"
                runs.append(row(len(runs) + 1, f"{said(slot)} {status}{odd}"))

        # When what is decided is done, then nothing is left to do, and each time that is decided comes
        actions = decide(ours, seen(runs, now), now, LATE_SECONDS)
        perform(ours, runs, actions)
        assert decide(ours, seen(runs, now), now, LATE_SECONDS) == [], (ours.cron, ours.timezone, now)
        assert not [run for run in runs if run.status == "scheduled" and run.scheduled_at == run.slot_at <= now]
