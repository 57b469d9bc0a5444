"""`python -m workers budgets`: what it says of a budget in each of its states, to people and to programs."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.helpers.machine import ROOT, free_port, wait_until
from workers import Budget, Connector, Limit, RateLimiter, clock
from workers.cli.budget_view import as_text
from workers.connections import database
from workers.errors import RateLimited
from workers.limiter.lesson import Lesson
from workers.limiter.permits import PermitClient
from workers.limiter.state import BudgetState, Note, WindowState
from workers.processes.redis_data_folder import find_binary
from workers.records import schema
from workers.records.tables import Run, RunStatus
from workers.records.watermark import Watermark

LIMITS = [Limit(500, seconds=20), Limit(2000, seconds=100)]
COMMAND = [sys.executable, "-m", "workers", "budgets"]
KEYS = {
    *("name", "known", "windows", "in_flight", "waiting", "opens_in_seconds", "opens_at", "why_closed"),
    *("paused_for_seconds", "paused_until", "paused_why", "canary", "profile", "profile_why", "widened_seconds"),
    *("slowed", "taken_as_full_seconds", "taken_as_full_until", "lost_why", "granted", "hits", "sleeps"),
    *("slept_seconds", "sleeping_seconds", "foreign", "notes"),
}


@pytest.fixture
def place(environment: pytest.MonkeyPatch, redis_server: str) -> pytest.MonkeyPatch:
    """The demo's source, a real Redis, and a data folder of the test's own."""
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    return environment


@pytest.fixture
def limiter(place: pytest.MonkeyPatch, redis_server: str) -> Iterator[RateLimiter]:
    """The budget of the demo's source, from within."""
    with redis.Redis.from_url(redis_server) as client:
        prefix = os.environ["SLUICE_PREFIX"]
        yield RateLimiter(Budget("rate-test", LIMITS), client, prefix=prefix, max_wait_seconds=0.0)


def use(caller: PermitClient, count: int) -> None:
    for _ in range(count):
        caller.answered(caller.acquire(5))
    caller.flush()


def hear(caller: PermitClient, status: int, **headers: str) -> None:
    permit = caller.acquire(5)
    with suppress(RateLimited):
        caller.report(permit, status, {name.replace("_", "-"): value for name, value in headers.items()})
    caller.flush()


def refuse(limiter: RateLimiter) -> None:
    with pytest.raises(RateLimited):
        limiter.permit_client().acquire(5)


def sluice(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def said(*arguments: str) -> str:
    done = sluice(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def budgets_json(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


def line(text: str, label: str) -> str:
    """Return what stands behind a label."""
    return next(row.strip().removeprefix(label).strip() for row in text.splitlines() if row.strip().startswith(label))


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_budget_that_was_never_used_says_so(place: pytest.MonkeyPatch) -> None:
    text = said()

    assert text.startswith("rate-test: not used since Redis was started or emptied\n")
    assert line(text, "2000/100 s") == "0 of 2,000  ...................."
    (state,) = budgets_json()
    assert (state["known"], state["opens_at"]) == (False, None)


def test_a_full_window_is_named_with_when_it_opens(limiter: RateLimiter) -> None:
    use(limiter.permit_client(), 500)
    refuse(limiter)

    text = said()

    assert re.match(r"rate-test: window 500/20 s full; opens in (1\d|20) s\n", text)
    assert line(text, "500/20 s") == "500 of 500    ####################  full"
    assert line(text, "2000/100 s") == "500 of 2,000  #####..............."
    assert line(text, "waiting") == "1"
    assert re.match(r"in 1\d\.\d s, at \S.* UTC$", line(text, "opens"))
    assert line(text, "profile") == "burst"
    assert line(text, "counters").startswith("permits 500, rate-limit hits (429) 0, planned waits 1 (0.0 s and ")


def test_a_pause_is_shown_with_its_end_and_its_reason(limiter: RateLimiter) -> None:
    hear(limiter.permit_client(), 429, Retry_After="1800")

    text = said("rate-test")
    (state,) = budgets_json()

    assert re.search(
        r"^rate-test: the API answered 429, Retry-After 1800: paused for (29|30) min \d+ s, until .* UTC$", text, re.M
    )
    assert re.match(
        r"for (29|30) min \d+ s, until .*:\d\d UTC: the API answered 429, Retry-After 1800",
        line(text, "paused"),
    )
    assert re.match(r"\d+ s ago", line(text, "notes"))
    until = datetime.fromisoformat(state["paused_until"])
    assert abs(until - datetime.now(UTC) - timedelta(seconds=state["paused_for_seconds"])) < timedelta(seconds=5)
    assert state["paused_why"] == "the API answered 429, Retry-After 1800"
    assert state["hits"] == 1


def test_a_budget_that_became_paced_says_why(limiter: RateLimiter) -> None:
    make_paced(limiter)

    text = said()
    (state,) = budgets_json()

    assert line(text, "profile").startswith("paced: the API refused a request though every window had room")
    assert state["profile"] == "paced"
    assert state["profile_why"] == "the API refused a request though every window had room"
    assert state["slowed"].startswith("paced: ")


def make_paced(limiter: RateLimiter) -> None:
    """Let the API refuse, without a word, what every window had room for, until the budget draws its conclusion."""
    caller = limiter.permit_client()
    for _ in range(5):
        with suppress(RateLimited):
            use(caller, 3)
            hear(caller, 429, Retry_After="0")
        if limiter.snapshot().profile == "paced":
            return
        time.sleep(1.1)
    raise AssertionError("it is not paced")


def test_what_others_spend_and_a_lower_limit_of_the_api_are_shown(limiter: RateLimiter) -> None:
    caller = limiter.permit_client()
    hear(caller, 200, X_RateLimit_Limit="500", X_RateLimit_Remaining="300")
    hear(caller, 200, RateLimit_Policy='"a";q=400;w=20', RateLimit='"a";r=100;t=10')

    text = said()
    (state,) = budgets_json()

    assert line(text, "400/20 s").endswith("configured as 500/20 s; the API's headers name this limit")
    assert state["foreign"] > 0
    assert line(text, "counters").endswith(f"requests of others {state['foreign']}")
    assert state["windows"][0] == {
        **{"seconds": 20, "configured": 500, "limit": 400, "in_force": 400, "used": 300, "taken_as_full": False}
    }
    assert state["slowed"] == "window 500/20 s is 400 now, says the API"


def lose_state(limiter: RateLimiter) -> None:
    use(limiter.permit_client(), 1)
    limiter.ledger.client.delete(limiter.ledger.keys[1])
    refuse(limiter)


def test_windows_that_are_taken_as_full_say_how_state_was_lost(limiter: RateLimiter) -> None:
    lose_state(limiter)

    text = said()
    (state,) = budgets_json()

    assert re.match(
        r"rate-test: window 2000/100 s taken as full: a part of its state is gone; opens in 1 min \d+ s\n", text
    )
    assert line(text, "500/20 s") == "500 of 500      ####################  taken as full"
    assert re.match(r"for 1 min \d+ s, until .* UTC: a part of its state is gone$", line(text, "taken as full"))
    assert [window["taken_as_full"] for window in state["windows"]] == [True, True]
    assert datetime.fromisoformat(state["taken_as_full_until"]) > datetime.now(UTC)


def test_json_has_the_same_keys_whatever_the_state(limiter: RateLimiter) -> None:
    (unknown,) = budgets_json()
    hear(limiter.permit_client(), 429, Retry_After="30")
    (paused,) = budgets_json("rate-test")

    for state in (unknown, paused):
        assert set(state) == KEYS
        numbers = {key for key in KEYS if key.endswith("_seconds")} | {"granted", "hits", "sleeps", "foreign"}
        assert {key for key in numbers if not isinstance(state[key], int | float)} == set()
    assert unknown["notes"] == [] and unknown["paused_until"] is None
    assert set(paused["notes"][0]) == {"at", "text"}
    assert all(datetime.fromisoformat(paused[key]).tzinfo for key in ("opens_at", "paused_until"))


def test_a_share_and_hostile_words_of_an_api_are_shown_as_they_are_to_be() -> None:
    window = WindowState(Limit(100, seconds=10), full=100, in_force=80, used=1)
    notes = (Note(90_000.0, "\x1b[2Jcleared"),)
    state = BudgetState("api", (window,), paused_for_seconds=5.0, paused_why="a\x1b]0;b", notes=notes)

    text = as_text(state, datetime(2026, 1, 1, 23, 59, 58, tzinfo=UTC))

    assert line(text, "100/10 s") == "1 of 80  #...................  our share of 100"
    assert "paused for 5 s, until 2026-01-02 00:00:03 UTC" in text
    assert line(text, "notes") == "1 d 1 h ago   [2Jcleared"
    assert "\x1b" not in text


def test_while_the_canary_is_out_the_budget_is_not_called_open(limiter: RateLimiter) -> None:
    hear(limiter.permit_client(), 429, Retry_After="0")
    wait_until(lambda: limiter.snapshot().opens_in_seconds == 0, what="the end of its pause")
    limiter.permit_client().acquire(5)

    text = said()

    assert text.startswith("rate-test: after a pause, one request is out to see whether the API answers again\n")
    assert line(text, "opens") == "when the canary request is answered"


# --- which budgets ----------------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known_ones_and_ends_with_2(place: pytest.MonkeyPatch) -> None:
    done = sluice("nothing")

    assert done.returncode == 2
    assert done.stderr == "Error: There is no budget named 'nothing'. Known budgets: rate-test.\n"


def test_a_tenant_s_budget_is_shown_while_its_run_is_active(place: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given a source with a budget for each tenant, one of whose connectors cannot be made
    (tmp_path / "shops.py").write_text(
        "from sources import ItemSource, api\n"
        "from workers import Connector\n"
        "class Shops(ItemSource):\n"
        "    def get_connector(self, run):\n"
        "        if run.tenant == 'bad': raise ValueError('x')\n"
        "        return Connector(f'shop-{run.tenant}', base_url=api.base_url, limits=api.budget.limits)\n"
        "SOURCES = [Shops()]\n"
    )
    place.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    place.setenv("SLUICE_SOURCES", "shops:SOURCES")
    schema.migrate()
    with database.connection():
        for tenant, status in [("ann", RunStatus.RUNNING), ("bob", RunStatus.COMPLETED), ("bad", RunStatus.RUNNING)]:
            Run.create(source="items", tenant=tenant, status=status, lanes=1, created_by="me")

    # When the budgets are asked for
    done = sluice("--json")

    # Then those of the source and of the active run are there, and what cannot be known is reported
    assert [state["name"] for state in json.loads(done.stdout)] == ["rate-test", "shop-ann"]
    assert done.stderr == "Warning: run 3: its budget is unknown, because get_connector failed (ValueError)\n"
    assert [state["name"] for state in json.loads(sluice("shop-ann", "--json").stdout)] == ["shop-ann"]


def test_the_sources_budgets_are_shown_without_a_database(place: pytest.MonkeyPatch) -> None:
    place.setenv("SLUICE_DATABASE_URL", f"postgresql://absent@127.0.0.1:{free_port()}/none")

    done = sluice()

    assert done.returncode == 0
    assert done.stdout.startswith("rate-test: ")
    assert "Warning: the database does not answer" in done.stderr


# --- Redis away, and watching -----------------------------------------------------------------------------------------


def test_a_redis_that_is_away_ends_with_3(place: pytest.MonkeyPatch) -> None:
    place.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")

    done = sluice()

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("Error: Redis does not answer")


def watching(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, "--watch", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_until(process: "subprocess.Popen[str]", pattern: str, seconds: float = 15.0) -> str:
    """Read its output, line by line, until a line matches."""
    assert process.stdout
    ends_at, seen = time.monotonic() + seconds, ""
    while not re.search(pattern, seen, re.M):
        assert time.monotonic() < ends_at, f"{pattern!r} is not in {seen!r}"
        if select.select([process.stdout], [], [], 0.2)[0]:
            seen += process.stdout.readline()
    return seen


def test_watching_into_a_file_prints_a_block_each_second_and_ends_with_130(limiter: RateLimiter) -> None:
    hear(limiter.permit_client(), 429, Retry_After="50")
    process = watching()

    seen = read_until(process, r"(?s)(^--- .*UTC$.*paused +for .*){2}")

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    first, second = re.findall(r"^rate-test: .*paused for (\d+) s", seen, re.M)[:2]
    assert int(first) - int(second) in (1, 2)


def test_watching_as_json_prints_an_array_a_line(place: pytest.MonkeyPatch) -> None:
    process = watching("--json")
    lines = read_until(process, r"(?s)(^\[.*\]$\n){2}").splitlines()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)

    assert process.returncode == 143
    assert [state["name"] for text in lines for state in json.loads(text)] == ["rate-test"] * 2


def test_watching_outlives_a_redis_that_is_away(place: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given a watcher and no Redis
    port = free_port()
    place.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{port}/0")
    process = watching()
    read_until(process, r"(?s)(Redis does not answer.*Asking again each second.*){2}")

    # When one comes up
    command = [find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # Then it shows the budgets
    try:
        read_until(process, "^rate-test: not used")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        server.terminate()
        server.wait(10)
    assert process.returncode == 130


def test_on_a_terminal_it_is_drawn_in_place_until_ctrl_c(limiter: RateLimiter) -> None:
    # Given a terminal
    hear(limiter.permit_client(), 429, Retry_After="60")
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "LINES": "40", "TERM": "xterm-256color"}
    process = subprocess.Popen([*COMMAND, "--watch"], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""

    def hear_it() -> bytes:
        nonlocal seen
        while select.select([ours], [], [], 0.1)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        return seen

    # When two drawings were made, and Ctrl-C is pressed
    wait_until(lambda: hear_it().count(b"Ctrl-C ends") >= 2, 15, "the second drawing")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    hear_it()
    os.close(ours)

    # Then the second one took the place of the first, and the cursor is back
    assert b"\x1b[1A" in seen and "░".encode() in seen
    assert b"Retry-After 60" in seen
    assert seen.rstrip().endswith(b"\x1b[?25h")


# --- the way back -----------------------------------------------------------------------------------------------------


def test_what_the_api_taught_is_forgotten_by_name_and_what_counts_stays(limiter: RateLimiter) -> None:
    # Given a budget that became paced and adopted a lower limit, which the database keeps, too
    schema.migrate()
    make_paced(limiter)
    wait_until(lambda: limiter.snapshot().opens_in_seconds == 0, what="the end of its pause")
    hear(limiter.permit_client(), 200, RateLimit_Policy='"a";q=400;w=20', RateLimit='"a";r=380;t=10')
    Watermark("rate-test").keep_lesson(Lesson("paced", "so it was", 1.0))
    before = limiter.snapshot()
    assert (before.profile, before.windows[0].full) == ("paced", 400)

    # When a person lets it learn anew
    done = sluice("rate-test", "--relearn")

    # Then it is as configured, nothing that counts is forgotten, and a note says who did it
    assert done.returncode == 0, done.stderr
    assert done.stderr == "rate-test: reset to its configuration\n"
    after = limiter.snapshot()
    assert (after.profile, after.profile_why, after.widened_seconds) == ("burst", "", 0.0)
    assert [(window.full, window.used) for window in after.windows] == [
        (500, before.windows[0].used),
        (2000, before.windows[1].used),
    ]
    assert (after.granted, after.hits, after.foreign) == (before.granted, before.hits, before.foreign)
    assert after.notes[0].text.endswith(": as configured again, what the API taught is forgotten")
    assert Watermark("rate-test").lesson() == Lesson()


def test_a_budget_that_learned_anew_can_become_paced_again(limiter: RateLimiter) -> None:
    make_paced(limiter)
    assert limiter.relearn("ann")
    assert limiter.snapshot().profile == "burst"
    wait_until(lambda: limiter.snapshot().opens_in_seconds == 0, what="the end of its pause")

    make_paced(limiter)

    assert limiter.snapshot().notes[0].seconds_ago < 5


def test_to_relearn_needs_a_name_and_tables(place: pytest.MonkeyPatch) -> None:
    nameless = sluice("--relearn")
    assert nameless.returncode == 2
    assert "--relearn needs the NAME of a budget" in nameless.stderr

    unmigrated = sluice("rate-test", "--relearn")
    assert unmigrated.returncode == 2
    assert "python -m workers migrate" in unmigrated.stderr


def test_to_relearn_where_redis_knows_nothing_forgets_what_the_database_kept(place: pytest.MonkeyPatch) -> None:
    schema.migrate()
    Watermark("rate-test").keep_lesson(Lesson("paced", "so it was", 1.0))

    done = sluice("rate-test", "--relearn")

    assert "Redis has no state of it: repeat this when it is in use" in done.stderr
    assert Watermark("rate-test").lesson() == Lesson()


# --- looking changes nothing ------------------------------------------------------------------------------------------


def test_a_look_with_larger_limits_than_the_fleet_s_does_not_lose_its_state(
    limiter: RateLimiter, moved_clock: clock.MovedClock
) -> None:
    """Given a rolling change of limits: the page has the new ones, the workers still the old."""
    use(limiter.permit_client(), 3)
    larger = Connector("rate-test", base_url="http://127.0.0.1", limits=[Limit(5000, seconds=20)]).budget

    seen = RateLimiter(larger, limiter.ledger.client, prefix=os.environ["SLUICE_PREFIX"]).snapshot()

    assert (seen.windows[0].used, seen.windows[0].in_force) == (3, 5000)
    assert limiter.snapshot().known
    use(limiter.permit_client(), 1)
    assert (limiter.snapshot().windows[0].used, limiter.snapshot().taken_as_full_seconds) == (4, 0.0)


@pytest.mark.parametrize("spoil", [lose_state, make_paced, lambda limiter: hear(limiter.permit_client(), 429)])
def test_a_snapshot_changes_nothing(limiter: RateLimiter, spoil: Callable[[RateLimiter], None]) -> None:
    spoil(limiter)
    before = [limiter.ledger.client.dump(key) for key in limiter.ledger.keys]

    limiter.snapshot()

    assert [limiter.ledger.client.dump(key) for key in limiter.ledger.keys] == before
