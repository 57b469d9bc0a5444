"""Cron: refused expressions, and the slots around the days on which clocks are moved."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as some

from workers.cron import ALIASES, Cron
from workers.errors import UsageError

MINUTE = timedelta(minutes=1)

#: Zones of all kinds, and the UTC days on which their clocks are moved: forward, then back.
CHANGES = {
    "Europe/Paris": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-03", "2026-04-04"),  # by half an hour
    "Australia/Adelaide": ("2026-10-03", "2026-04-04"),  # from +9:30 to +10:30
    "America/Havana": ("2026-03-08", "2026-11-01"),  # at midnight
    "Antarctica/Troll": ("2026-03-29", "2026-10-25"),  # by two hours
    "Asia/Kolkata": ("2026-03-29", "2026-10-25"),  # never
}


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(expression: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    return Cron(expression, zone).between(begin, end, 10_000)


def shown(slots: list[datetime], zone: str) -> list[str]:
    """What the zone's clock shows at each slot."""
    return [slot.astimezone(ZoneInfo(zone)).strftime("%d %H:%M") for slot in slots]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "* * * *",
        "0 0 0 * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "-1 * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "*/90 * * * *",
        "0 0-23/36 * * *",
        "1,,2 * * * *",
        "a * * * *",
        "٣ * * * *",
        "² * * * *",
        "* * * * ²L",
        "1.5 * * * *",
        "* * * * 1#6",
        "* * * * L/2",
        "0 0 30 2 *",
        "99999999999999999999 * * * *",
        "*/99999999999999999999 * * * *",
        "1," * 5_000 + "1 * * * *",
        "* " * 100_000,
        "1/1/1/1 * * * *",
        "0 0 * * *; DROP TABLE runs",
    ],
)
def test_what_cannot_be_read_is_refused_with_an_example(expression):
    with pytest.raises(
        UsageError, match=r"write minute, hour, day, month and weekday, like \"0 \*/3 \* \* \*\""
    ) as caught:
        Cron(expression)
    assert len(str(caught.value)) < 350


def test_what_never_comes_is_refused_with_a_question():
    with pytest.raises(UsageError, match=r"never occurs: does the month have such a day\?"):
        Cron("0 0 */31 * 1#2")  # the first of a month that is its second Monday


def test_an_unknown_alias_is_answered_with_those_there_are():
    with pytest.raises(UsageError, match="'@reboot' is no alias of a schedule: use one of @hourly, @daily"):
        Cron("@reboot")


@pytest.mark.parametrize(
    "zone", ["", "europe/paris", "Paris", "CEST", "+01:00", "../etc/passwd", "/etc/localtime", "localtime", "a\0b"]
)
def test_what_is_no_timezone_is_refused_with_an_example_and_never_read_as_a_file(zone):
    with pytest.raises(UsageError, match=r"There is no timezone .*: write a name like Europe/Paris, or UTC"):
        Cron("* * * * *", zone)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(some.lists(some.text("0123456789*/,-#?@LW²٣ \tMONJAN", min_size=1, max_size=6), min_size=4, max_size=6))
def test_any_text_is_read_or_refused(fields):
    try:
        cron = Cron(" ".join(fields))
    except UsageError:
        return
    assert cron.in_words and cron.next(1, day("2026-01-01"))


# --- what is understood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_stands_for_five_fields(alias):
    assert Cron(f" {alias.upper()} ").expression == ALIASES[alias]


def test_blanks_and_lines_between_fields_do_not_matter():
    assert Cron(" 0\t*/3  * *\n*\n").expression == "0 */3 * * *"


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 */3 * * *", "At minute 0 past every third hour"),
        ("30 2 * * *", "At 02:30 every day"),
        ("@weekly", "At 00:00 on Sunday"),
        ("*/15 * * * *", "Every 15th minute of every hour"),
    ],
)
def test_an_expression_is_told_in_words(expression, words):
    assert Cron(expression, "Europe/Paris").in_words == words


def test_days_of_month_and_week_are_either_unless_one_is_a_star():
    # Debian's rule: the 13th, and every Friday
    got = slots("0 12 13 * 5", "UTC", day("2026-03-01"), day("2026-03-20"))
    assert shown(got, "UTC") == ["06 12:00", "13 12:00"]


def test_the_slot_at_the_very_instant_is_none_after_it():
    noon = day("2026-05-01T12:00")
    assert Cron("0 12 * * *").next(1, noon) == [day("2026-05-02T12:00")]
    assert Cron("0 12 * * *").next(1, noon - timedelta(microseconds=1)) == [noon]
    assert Cron("0 12 * * *").next(1, noon + timedelta(microseconds=1)) == [day("2026-05-02T12:00")]


def test_between_gives_the_newest_and_takes_no_longer_for_a_long_time():
    # Given minutes of more than a year, which would take seconds to count; then the newest come, oldest first
    end = day("2026-05-01T00:00:30")
    got = Cron("* * * * *", "Europe/Paris").between(day("2025-01-01"), end, 1_001)
    assert got == [day("2026-05-01") - i * MINUTE for i in reversed(range(1_001))]

    # And where there are fewer, all of them: after the beginning, up to and with the end
    assert Cron("0 0 1 * *").between(day("2026-01-01"), day("2026-04-01"), 5) == [
        day("2026-02-01"),
        day("2026-03-01"),
        day("2026-04-01"),
    ]


# --- the days on which clocks are moved -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "zone", "begin", "want"),
    [
        # leapt over: when the leap is over
        ("30 2 * * *", "Europe/Paris", "2026-03-28", ["28 02:30", "29 03:00", "30 02:30"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T05:00", ["07 02:30", "08 03:00", "09 02:30"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02", ["03 02:15", "04 02:30", "05 02:15"]),
        ("30 2 * * *", "Australia/Adelaide", "2026-10-02", ["03 02:30", "04 03:00", "05 02:30"]),
        ("0 0 * * *", "America/Havana", "2026-03-06T06:00", ["07 00:00", "08 01:00", "09 00:00"]),
        # two of them, or one and the one that comes then: once
        ("0,30 2 * * *", "Europe/Paris", "2026-03-28T12:00", ["29 03:00", "30 02:00", "30 02:30"]),
        ("0 2,3 * * *", "Europe/Paris", "2026-03-28T12:00", ["29 03:00", "30 02:00", "30 03:00"]),
        # comes twice: the first time only
        ("30 2 * * *", "Europe/Paris", "2026-10-24", ["24 02:30", "25 02:30", "26 02:30"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T04:00", ["31 01:30", "01 01:30", "02 01:30"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-03", ["04 01:45", "05 01:45", "06 01:45"]),
        # a zone that moves no clock
        ("30 2 * * *", "Asia/Kolkata", "2026-03-28", ["29 02:30", "30 02:30", "31 02:30"]),
        # hours with a star: every one the clock shows
        ("0 */3 * * *", "Europe/Paris", "2026-03-28T23:00", ["29 03:00", "29 06:00", "29 09:00"]),
        ("0 */3 * * *", "Australia/Lord_Howe", "2026-04-04T14:00", ["05 03:00", "05 06:00", "05 09:00"]),
        ("40 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00", ["05 01:40", "05 01:40", "05 02:40"]),
    ],
)
def test_a_time_that_is_leapt_over_comes_late_and_one_that_comes_twice_comes_first(expression, zone, begin, want):
    assert shown(Cron(expression, zone).next(3, day(begin)), zone) == want


def test_of_a_time_that_comes_twice_it_is_the_first():
    [slot] = Cron("30 2 25 10 *", "Europe/Paris").next(1, day("2026-10-24"))
    assert slot == day("2026-10-25T00:30")


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("which", [0, 1], ids=["forward", "back"])
def test_slots_with_a_star_keep_their_distance_whatever_clocks_do(zone, which):
    noon = day(CHANGES[zone][which]) - timedelta(hours=12)
    got = slots("*/15 * * * *", zone, noon, noon + timedelta(days=2))
    assert len(got) == 192 and {b - a for a, b in pairwise(got)} == {15 * MINUTE}


def naive(expression: str, zone: str, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The oracle: walk UTC minutes and look at the clock on the wall. Only for numbers, steps and stars."""
    minute, hour, *_ = fields = expression.split()
    steady = minute.startswith("*") or hour.startswith("*")
    at = CronSim(expression, datetime(2026, 1, 1))  # for its sets of values, no arithmetic of it

    def fits(wall: datetime) -> bool:
        return wall.minute in at.minutes and wall.hour in at.hours and at.match_day(wall.date())

    assert fields[3] == "*"
    before = (begin - MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    now, seen = begin, set()
    while now <= end:
        wall = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        leapt = [before + i * MINUTE for i in range(1, (wall - before) // MINUTE)]
        first_time = wall not in seen
        if (fits(wall) and (steady or first_time)) or (not steady and any(map(fits, leapt))):
            yield now
        seen.add(wall)
        now, before = now + MINUTE, wall


EXPRESSIONS = [
    "0 */3 * * *",
    "*/15 * * * *",
    "40 * * * *",
    "*/10 2 * * *",
    "*/10 1-3 * * *",
    "5,35 */2 * * *",
    "*/20 0 * * 0",
    "7 1,2,3 * * *",
    "30 0 * * *",
    "0,30 0-4 * * *",
    "15,45 2 * * 0",
]


@pytest.mark.parametrize("zone", CHANGES)
def test_the_slots_are_those_that_a_walk_over_every_minute_finds(zone):
    for change in CHANGES[zone]:
        begin = day(change) - timedelta(hours=4)
        end = begin + timedelta(days=1, hours=4)
        for expression in EXPRESSIONS:
            want = list(naive(expression, zone, begin - timedelta(hours=3), end))
            assert slots(expression, zone, begin, end) == [slot for slot in want if slot > begin], expression


def test_the_slots_after_an_instant_are_the_same_from_wherever_one_counts():
    # Given expressions, zones and pairs of instants near a change: what "each slot exactly once" stands on
    chance = random.Random(5)

    def field(most: int) -> str:
        return chance.choice(["*", f"*/{chance.randint(2, 7)}", str(chance.randrange(most)), f"0-{most - 1}/5"])

    for _ in range(400):
        zone = chance.choice(list(CHANGES))
        cron = Cron(f"{field(60)} {field(5)} * * {chance.choice(['*', '*', '0', '6'])}", zone)
        begin = day(chance.choice(CHANGES[zone])) - chance.randrange(30 * 60) * MINUTE
        later = begin + chance.randrange(36 * 60) * MINUTE + timedelta(microseconds=chance.randrange(2))

        # When they are counted from both, then what follows the later one is the same
        from_later = cron.next(4, later)
        from_begin = cron.between(begin, from_later[-1], 5_000)
        assert [slot for slot in from_begin if slot > later] == from_later, (cron, begin, later)
        assert all(a < b for a, b in pairwise(from_begin))
