"""The command line from within: each command's help, answers, errors and exit codes, and what a shell completes."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
import redis

from sources import api
from tests.helpers.machine import ROOT, forget, free_port
from workers import RateLimiter, clock
from workers.cli import progress
from workers.cli.command_line import SECTIONS, cli, main
from workers.cli.progress import shortened
from workers.cli.schedule import schedule
from workers.connections import database
from workers.control import runner
from workers.errors import DependencyDown, RateLimited
from workers.failures import FailureClass
from workers.limiter.permits import Usage
from workers.messaging import process_heartbeat, scheduler_heartbeat
from workers.records import claims, commits, items, run_completion, runs, schema
from workers.records.commits import Outcome
from workers.records.tables import ItemStatus, Run, RunEvent, RunStatus
from workers.text.durations import duration

COMMANDS = [name for entries in SECTIONS.values() for name, _, _ in entries]
BY = {"who": "ann", "door": "script"}


@dataclass(frozen=True)
class Output:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Sluice = Callable[..., Output]


@pytest.fixture
def sluice(
    environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[Sluice]:
    """Call a command as the installed `sluice` would: sluice("pause", "7")."""
    handlers, level = logging.root.handlers[:], logging.root.level

    def call(*words: object) -> Output:
        environment.setattr(sys, "argv", ["sluice", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return Output(int(str(ended.value.code)), said.out, said.err)

    yield call
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def start(count: int = 0, **options: Any) -> Run:
    """Start a run of the demo's source with `count` items, on which no worker works."""
    run = runner.start("items", **BY, **options)
    row = {"due_at": clock.now(), "status": "pending", "item_type": "item"}
    if count:
        items.add(run.id, [row | {"external_id": str(n), "item_id": str(n)} for n in range(1, count + 1)])
        counted = {Run.total_count: count, Run.discovered_at: clock.now(), Run.discovery_cursor: None}
        Run.update(counted).where(Run.id == run.id).execute()
    return run


def fail(run: Run, *failures: tuple[FailureClass, str]) -> None:
    """Let the first items of a run fail, each as given, and all others succeed; and end the run."""
    claim = claims.claim(run.id, 100, lease_seconds=60)
    outcomes = [
        Outcome(item, ItemStatus.FAILED, failure_class=failures[n][0], reason=failures[n][1])
        if n < len(failures)
        else Outcome(item, ItemStatus.COMPLETED)
        for n, item in enumerate(claim.items)
    ]
    commits.commit(run.id, claim, outcomes, Usage(), lambda models: None)
    assert run_completion.complete_if_done(run.id)


def status_of(run: Run) -> str:
    return str(runs.get(run.id).status)


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[n] for n in COMMANDS] + [["schedule", n] for n in schedule.commands], ids=" ".join)
def test_each_command_s_help_says_what_it_does_and_shows_how(sluice: Sluice, words: list[str]) -> None:
    said = sluice(*words, "--help")

    assert said.code == 0
    usage, first, *_ = said.out.split("\n\n")
    assert usage.startswith(f"Usage: sluice {' '.join(words)}")
    assert re.fullmatch(r"  [A-Z][^.]+\.", first), "its first paragraph is one sentence"
    assert f"    sluice {words[0]}" in said.out or words == ["completion"], "an example, as it was typed"


def test_the_list_says_what_a_person_may_want_and_how_commands_end(sluice: Sluice) -> None:
    said = sluice("--help")

    assert said.code == 0
    for title, entries in SECTIONS.items():
        assert f"\n{title}:\n" in said.out
        assert all(re.search(rf"^  {name} +[A-Z]", said.out, re.MULTILINE) for name, *_ in entries)
    for ending in (
        "0  done",
        "1  failed",
        "2  usage",
        "3  Redis or the database",
        "4  finished, with failed",
        "130, 143",
    ):
        assert ending in said.out
    assert "worker-process" not in said.out
    assert max(map(len, said.out.splitlines())) <= 80


def test_the_list_is_quick_for_it_loads_nothing_that_works(environment: pytest.MonkeyPatch) -> None:
    look = "import sys\nfrom workers.cli.command_line import main\n"
    look += "try: main()\nexcept SystemExit: print(sorted(sys.modules))"

    done = subprocess.run([sys.executable, "-c", look, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    loaded = set(re.findall(r"'([\w.]+)'", done.stdout))
    assert "workers.cli" in loaded
    assert not loaded & {
        "dramatiq",
        "streamlit",
        "pandas",
        "rich",
        "workers.reports.run_stats",
        "workers.control.runner",
    }


def test_help_is_given_where_the_settings_cannot_be_read(sluice: Sluice, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SLUICE_LOG_LEVEL", "loud")

    assert sluice("run", "--help").code == 0
    assert "SLUICE_LOG_LEVEL cannot be used" in sluice("status").err


# --- wrong words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["pausee"], "Did you mean 'pause'?"),
        (["run", "--wiat"], "--wait"),
        (["run", "nothing"], "Error: There is no source named 'nothing'. Known sources: items.\n"),
        (["run", "itmes"], "Known sources: items. Did you mean 'items'?"),
        (["run", "--at", "tomorrow"], "write it like 2026-12-24T18:00"),
        (["run", "--at", "2001-01-01"], "has passed"),
        (["run", "--inline", "--at", "2099-01-01"], "give one of them"),
        (["pause", "items"], "'items' is not the number of a run"),
        (["pause", "7"], "There is no run 7."),
        (["pause", "9" * 30], "is not the number of a run"),
        (["retry", "7", "--class", "rain"], "'transient'"),
        (["adjust", "7"], "--lanes N, --priority N, or both"),
        (["adjust", "7", "--lanes", "0"], "1<=x<=1024"),
        (["status", "--source", "itmes"], "Did you mean 'items'?"),
        (["status", "--watch"], "No run is running, paused or pending"),
        (["reschedule"], "No run of items is scheduled"),
        (["schedule", "items"], "`show items`"),
        (["schedule", "pauze", "items"], "Did you mean 'pause'?"),
        (["schedule", "list"], "`schedule` without a subcommand lists the schedules."),
        (["schedule", "show", "items", "--tenant", "x"], 'schedule set items "0 */3 * * *"'),
        (["schedule", "set", "items", "every day"], "minute, hour, day, month and weekday"),
        (["schedule", "preview", "0 3 * * *", "--timezone", "Europe/Pari"], "Did you mean 'Europe/Paris'?"),
        (["schedule", "preview", "0 3 * * *", "--timezone", "europe/paris"], "Did you mean 'Europe/Paris'?"),
        (["schedule", "set", "items", "0 3 * * *", "--timezone", "new york"], "Did you mean 'America/New_York'?"),
        (["retry"], "Nothing failed in the latest run of any source"),
        (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_answered_with_the_right_ones_and_ends_with_2(
    demo: None, sluice: Sluice, words: list[str], hint: str
) -> None:
    said = sluice(*words)

    assert (said.code, said.out) == (2, "")
    assert hint in said.err
    assert "Traceback" not in said.err


@pytest.fixture
def demo(environment: pytest.MonkeyPatch, redis_server: str) -> Iterator[None]:
    """The demo's source in an SQLite database, and a Redis; for what does not depend on the kind of database."""
    from models import Item

    environment.setenv("SLUICE_REDIS_URL", redis_server)
    environment.setenv("SLUICE_BROKER_URL", "stub://")
    schema.migrate([Item])
    with database.connection():
        yield


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SLUICE_DATABASE_URL", "mysql://x/y", "must begin with sqlite:/// or postgresql://"),
        ("SLUICE_DATABASE_URL", "postgresql://u:pa#ss@h/db", "special characters of the password as %XX"),
        ("SLUICE_DATABASE_URL", "sqlite://here.db", "must name a file that processes can share"),
        ("SLUICE_BROKER_URL", "http://x", "SLUICE_BROKER_URL must begin with redis://"),
        ("SLUICE_WORKER_THREADS", "none", "SLUICE_WORKER_THREADS cannot be used"),
        ("SLUICE_SOURCES", "not_here:SOURCES", "names a module that is not here"),
        ("SLUICE_SOURCES", "sources", "write module:LIST, like sources:SOURCES"),
        ("SLUICE_DATABASE_URL", "sqlite:////proc/nope/sluice.db", "cannot be written"),
    ],
)
def test_a_bad_setting_is_one_sentence_with_the_fix_and_ends_with_2(
    sluice: Sluice, environment: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    environment.setenv(variable, value)

    done = sluice("run")

    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert "pa#ss" not in done.err


def test_sources_that_cannot_be_imported_are_named_with_the_line_that_fails(
    sluice: Sluice, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("SOURCES = [1 / 0]")
    environment.syspath_prepend(str(tmp_path))
    environment.setenv("SLUICE_SOURCES", "broken:SOURCES")

    said = sluice("sources")

    assert said.code == 2
    assert f"broken cannot be imported: ZeroDivisionError: division by zero ({tmp_path}/broken.py:1)" in said.err


def test_fresh_is_refused_where_the_source_does_not_allow_it(import_from: Any, sluice: Sluice) -> None:
    import_from("http://127.0.0.1:1", allow_fresh=False)

    said = sluice("run", "--fresh")

    assert (said.code, said.out) == (2, "")
    assert "set allow_fresh = True on TestSource" in said.err


def test_a_fresh_run_of_an_empty_list_takes_a_word_of_its_own(import_from: Any, sluice: Sluice) -> None:
    import_from("http://127.0.0.1:1")

    refused = sluice("run", "--even-if-empty")
    started = sluice("run", "--fresh", "--even-if-empty", "--at", "2099-01-01")

    assert (refused.code, refused.out) == (2, "")
    assert "--even-if-empty is for --fresh: give both, or neither" in refused.err
    assert started.code == 0
    assert [run.options for run in Run.select()] == [{"fresh": True, "even_if_empty": True}]


def test_a_password_with_special_characters_reaches_postgres_as_it_is(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SLUICE_DATABASE_URL", f"postgresql://ann:p%40ss%231@127.0.0.1:{free_port()}/sluice")

    assert database.connect().connect_params["password"] == "p@ss#1"


def test_a_database_that_is_down_ends_with_3(sluice: Sluice, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SLUICE_DATABASE_URL", f"postgresql://absent@127.0.0.1:{free_port()}/none")

    said = sluice("status")

    assert said.code == 3
    assert "the database does not answer" in said.err and "To do: start it" in said.err


def test_a_file_that_is_no_database_is_to_be_moved_away(
    sluice: Sluice, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "notes.db").write_text("dear diary, " * 100)
    environment.setenv("SLUICE_DATABASE_URL", f"sqlite:///{tmp_path}/notes.db")

    said = sluice("status")

    assert (said.code, said.out) == (3, "")
    assert "file is not a database. To do: move it away, or restore a copy" in said.err


def test_migrate_tells_which_tables_of_the_models_it_created(sluice: Sluice, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SLUICE_BROKER_URL", "stub://")

    assert sluice("migrate").err.startswith("applied: 0001_first_tables, ")
    assert sluice("migrate", "--create-models").err == "created: items\n"
    assert sluice("migrate", "--create-models", "--json").json == {"applied": [], "created": []}


def test_an_age_of_less_than_a_day_is_said_in_hours(demo: None, sluice: Sluice) -> None:
    said = sluice("prune", "--dry-run", "--items-days", "0.1", "--runs-days", "400")

    assert "ended more than 2 h 24 min ago" in said.err and "ended more than 400 days ago" in said.err


def test_redis_that_is_down_ends_with_3_and_the_repair(
    demo: None, sluice: Sluice, environment: pytest.MonkeyPatch
) -> None:
    forget()
    environment.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")

    said = sluice("budgets")

    assert said.code == 3
    assert "Redis does not answer" in said.err


def test_what_is_ordered_while_redis_is_down_stands_in_the_database(
    demo: None, sluice: Sluice, environment: pytest.MonkeyPatch
) -> None:
    run = start(3)
    forget()
    environment.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")

    said = sluice("pause")

    assert (said.code, status_of(run)) == (0, "paused")
    assert "Redis does not answer: the change is saved" in said.err


# --- steering ---------------------------------------------------------------------------------------------------------


def test_the_only_run_that_fits_need_not_be_named(house: Any, sluice: Sluice) -> None:
    run = start(3)

    # Each says what it chose, what became of it, and what comes next
    paused = sluice("pause")
    assert (paused.code, paused.out, status_of(run)) == (0, f"{run.id}\n", "paused")
    assert f"run {run.id} of items is paused" in paused.err and f"`resume {run.id}` continues" in paused.err
    assert sluice("pause").err == "Error: No run is running: name a run; `python -m workers status` lists them\n"

    resumed = sluice("resume")
    assert (resumed.code, resumed.out, status_of(run)) == (0, f"{run.id}\n", "running")

    cancelled = sluice("cancel", "--json")
    assert (cancelled.json["id"], cancelled.json["status"]) == (run.id, "cancelled")
    assert "what it has imported stays" in cancelled.err

    # And the timeline knows who it was
    answer = RunEvent.select().where(RunEvent.run_id == run.id, RunEvent.door == "cli").order_by(RunEvent.id)
    assert [event.what for event in answer] == ["paused", "resumed", "cancelled"]


def test_of_several_runs_that_fit_the_error_lists_them(house: Any, sluice: Sluice) -> None:
    runs_ = [start(tenant=tenant) for tenant in ("north", "south")]

    said = sluice("cancel")

    assert said.code == 2
    for run in runs_:
        assert f"{run.id} (items, running)" in said.err
        assert status_of(run) == RunStatus.RUNNING


def test_failed_items_are_retried_all_or_those_that_are_named(house: Any, sluice: Sluice) -> None:
    # Given a run of which three items failed, in two ways
    run = start(5)
    fail(run, (FailureClass.TRANSIENT, "timeout"), (FailureClass.NOT_FOUND, "gone"), (FailureClass.NOT_FOUND, "gone"))

    # When one class is asked for, of the run that failed last
    said = sluice("retry", "--class", "transient", "--json")

    # Then only that one is open again
    assert (said.code, said.json["id"], said.json["retried"]) == (0, run.id, 1)
    assert f"run {run.id} of items: 1 failed item is retried now" in said.err
    failed = items.RunItem.select().where(items.RunItem.run_id == run.id, items.RunItem.status == "failed")
    assert [item.failure_class for item in failed] == ["not_found", "not_found"]
    # And by its id another one
    assert sluice("retry", run.id, "--item", failed[0].external_id).code == 0
    assert failed.clone().count() == 1


def test_failed_items_are_listed_with_how_just_those_are_tried_again(house: Any, sluice: Sluice) -> None:
    # Given a run of which three items failed, in two ways
    run = start(5)
    fail(run, (FailureClass.TRANSIENT, "timeout"), (FailureClass.NOT_FOUND, "gone"), (FailureClass.NOT_FOUND, "gone"))

    # When those of one class are asked for, of the run that failed last
    answer = sluice("status", "--failed", "--class", "not_found", "--json").json
    shown = sluice("status", run.id, "--failed", "--last", 1)

    # Then they are listed one by one, at most as many as were asked for
    assert [(item["external_id"], item["attempts"], item["reason"]) for item in answer] == [
        ("2", 1, "gone"),
        ("3", 1, "gone"),
    ]
    assert len(shown.out.splitlines()) == 2
    assert f"1 of 3 failed items; `--last N` lists more; `retry {run.id}` retries them" in shown.err
    alike = sluice("status", run.id, "--fingerprint", answer[0]["fingerprint"])
    assert f"`retry {run.id} --fingerprint {answer[0]['fingerprint']}` retries them" in alike.err
    assert sluice("status", run.id, "--failed", "--class", "bug").err == (
        f"run {run.id} has no failed items that match --class bug\n"
    )
    # And the run can be found by what it is called, and says where they are
    assert [one["id"] for one in sluice("status", "--status", "completed with failures", "--json").json] == [run.id]
    assert f"`status {run.id} --failed` lists what failed" in sluice("status", run.id).err


def test_lanes_and_priority_are_adjusted_while_a_run_runs(house: Any, sluice: Sluice) -> None:
    run = start(3)

    said = sluice("adjust", "--lanes", 4, "--priority", 10, "--json")

    assert (said.code, said.json["lanes"], said.json["priority"]) == (0, 4, 10)
    assert (runs.get(run.id).lanes, runs.get(run.id).priority) == (4, 10)
    assert "threads" not in said.err
    assert "has 16 threads, one for each active lane" in sluice("adjust", "--lanes", 40).err


def test_force_is_refused_where_nothing_is_stuck(house: Any, sluice: Sluice) -> None:
    run = start(3)

    said = sluice("force", run.id)

    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Error: ") and str(run.id) in said.err


def test_a_paused_run_that_is_not_let_go_is_forced_after_five_minutes(house: Any, sluice: Sluice) -> None:
    # Given a paused run, of which a worker that hangs is processing an item
    run = start(3)
    claims.claim(run.id, 1, lease_seconds=3600)
    runner.pause(run.id, **BY)
    earlier = clock.now() - timedelta(minutes=6)
    RunEvent.update({RunEvent.at: earlier}).where(RunEvent.run_id == run.id).execute()
    Run.update({Run.updated_at: earlier}).where(Run.id == run.id).execute()

    # When it is forced
    said = sluice("force", run.id)

    # Then it says what it did
    assert (said.code, said.out) == (0, f"{run.id}\n")
    assert said.err
    assert not claims.has_any(run.id)


def test_a_scheduled_run_is_pulled_to_a_time_or_to_now(house: Any, sluice: Sluice) -> None:
    made = sluice("run", "--at", "2099-01-01T00:00", "--json")
    assert (made.code, made.json["status"]) == (0, "scheduled")
    assert made.json["scheduled_at"] == "2099-01-01T00:00:00+00:00"
    assert "starts at 2099-01-01 00:00:00 UTC" in made.err

    moved = sluice("reschedule", "--at", "2098-01-01T00:00+01:00")
    assert (moved.code, moved.out) == (0, f"{made.json['id']}\n")
    assert "starts at 2097-12-31 23:00:00 UTC" in moved.err

    assert sluice("reschedule", "--json").json["status"] == "running"
    behind = sluice("run", "--at", "2099-01-01T00:00").out.strip()
    assert f"run {behind} of items waits for run {made.json['id']}, which is running" in sluice("reschedule").err


def test_who_orders_for_later_hears_that_no_scheduler_runs(import_from: Any, sluice: Sluice) -> None:
    import_from("http://127.0.0.1:1", schedule=None)
    answer = [
        ("run", "--at", "2099-01-01T00:00"),
        ("reschedule", "--at", "2098-01-01T00:00"),
        ("schedule", "set", "items", "@daily"),
        ("schedule",),
    ]

    for words in answer:
        assert "no scheduler runs" in sluice(*words).err
    assert sluice("schedule", "pause", "items").code == 0
    assert "no scheduler runs" in sluice("schedule", "resume", "items", "--json").err

    scheduler_heartbeat.beat()
    for words in answer:
        assert "start `python -m workers scheduler`" not in sluice(*words).err


# --- looking ----------------------------------------------------------------------------------------------------------


def test_runs_are_listed_by_source_and_status_with_why_they_wait(house: Any, sluice: Sluice) -> None:
    # Given a run that runs, one behind it, and one that was cancelled
    first, second, third = start(3), start(), start()
    runner.cancel(third.id, **BY)

    assert {one["id"] for one in sluice("status", "--json").json} == {first.id, second.id, third.id}
    assert [one["id"] for one in sluice("status", "--status", "pending", "--json").json] == [second.id]
    assert sluice("status", "--source", "items", "--status", "failed", "--json").json == []
    assert len(sluice("status", "--last", 2, "--json").json) == 2
    assert f"run {second.id}: behind run {first.id}" in sluice("status").out
    assert f"\n{third.id} " not in sluice("status", "--status", "running").out


def test_a_run_is_told_in_json_and_in_a_table(demo: None, sluice: Sluice) -> None:
    run = start()

    answer = sluice("status", run.id, "--json").json

    assert (answer["id"], answer["source"], answer["status"], answer["percent"]) == (run.id, "items", "running", None)
    assert (answer["lanes"], answer["priority"], answer["failures"]) == (16, 0, [])
    assert "items" in sluice("status").out
    assert sluice("sources", "--json").json[0]["limits"] == ["500/20 s", "2000/100 s"]


def test_status_groups_what_failed_and_takes_nothing_an_api_said_for_its_own(demo: None, sluice: Sluice) -> None:
    # Given a run with three failed items, two of them alike, whose reasons would steer a terminal, or break a table
    run = start()
    reasons = {"1": "no [/red] item 1 \x1b[2J", "2": "no [/red] item 2 \x1b[2J", "\x1b[2J[/x]": "gone"}
    items.add(run.id, [{"external_id": i, "due_at": clock.now(), "status": "pending"} for i in reasons])
    Run.update({Run.total_count: 3, Run.discovered_at: clock.now()}).where(Run.id == run.id).execute()
    fail(run, *[(FailureClass.BAD_DATA, reason) for reason in reasons.values()])

    # When its status is asked for
    answer, shown = sluice("status", run.id, "--json").json, sluice("status", run.id)

    # Then there are two groups, printed as they are
    assert [(g["count"], g["failure_class"]) for g in answer["failures"]] == [(2, "bad_data"), (1, "bad_data")]
    assert "no [/red] item" in shown.out
    assert "\x1b" not in shown.out
    assert shown.code == 0


def test_status_tells_how_its_budget_is_paused_and_paced(demo: None, sluice: Sluice, redis_server: str) -> None:
    # Given a run whose API has refused a request without cause
    process_heartbeat.Heartbeat("worker").write()
    run = start()
    with redis.Redis.from_url(redis_server) as client:
        limiter = RateLimiter(api.budget, client, prefix=os.environ["SLUICE_PREFIX"])
        caller = limiter.permit_client()
        with pytest.raises(RateLimited):
            caller.report(caller.acquire(5), 429, {"Retry-After": "600"})

    # When its status is asked for
    answer = sluice("status", run.id, "--json").json

    # Then it says until when, and what else holds it back
    assert re.match(r"the API answered 429, Retry-After 600: paused for (9|10) min \d+ s, until .* UTC$", answer["why"])
    assert answer["why"].partition(": paused")[0] in sluice("status", run.id).out
    assert answer["slowed"] in sluice("status", run.id).out


def test_a_plan_whose_api_is_not_started_asks_whether_it_is(import_from: Any, sluice: Sluice) -> None:
    import_from("http://127.0.0.1:1")

    said = sluice("plan")

    assert (said.code, said.out) == (1, "")
    assert "http://127.0.0.1:1 refuses connections: is it started?" in said.err


def test_a_second_run_says_behind_what_it_waits(demo: None, sluice: Sluice) -> None:
    assert sluice("run").out == "1\n"

    second = sluice("run")

    assert (second.code, second.out) == (0, "2\n")
    assert "run 2 waits for run 1 of items, which is running" in second.err


def test_what_has_no_answer_says_what_to_do(import_from: Any, sluice: Sluice) -> None:
    import_from("http://127.0.0.1:1", schedule=None)

    assert sluice("status") == Output(0, "", "No run: `python -m workers run` starts one.\n")
    assert sluice("schedule").err.startswith("No source has a schedule: set one with `python -m workers schedule set")


def test_a_list_fits_a_terminal_of_80_columns(demo: None, environment: pytest.MonkeyPatch) -> None:
    # Given a run for a tenant, with a million items
    run = start(tenant="north")
    Run.update({Run.total_count: 1_000_000, Run.succeeded_count: 999_999}).where(Run.id == run.id).execute()
    environment.setenv("COLUMNS", "80")
    environment.setenv("TERM", "xterm")

    # When it is looked at on a terminal
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-m", "workers", "status"], cwd=ROOT, stdout=theirs, timeout=60, check=False)
    os.close(theirs)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 65536).decode())
    os.close(ours)

    # Then nothing is cut, and the table's rows are no longer than a line
    assert done.returncode == 0
    head, row, *_ = shown.splitlines()
    assert head.split() == ["run", "source", "status", "progress", "done", "failed", "took", "waiting"]
    assert "items (north)" in row and "999,999/1,000,000" in row
    assert max(len(head), len(row)) <= 80


def test_a_run_that_has_not_begun_is_told_without_what_it_has_not_done(demo: None, sluice: Sluice) -> None:
    run = runner.schedule("items", clock.now() + timedelta(days=1), **BY)
    runner.reschedule("items", **BY, at=clock.now() + timedelta(hours=1))

    shown = sluice("status", run.id).out

    assert not re.search(r"^(label|list read|failed|hits|efficiency) ", shown, re.MULTILINE)
    assert re.findall(r"^\S+ \d\d:\d\d:\d\d  (\w+)", shown, re.MULTILINE) == ["scheduled", "rescheduled"]
    runner.reschedule("items", **BY)
    assert re.search(r"^list read +no", sluice("status", run.id).out, re.MULTILINE)


def test_why_old_runs_failed_does_not_crowd_the_list(demo: None, sluice: Sluice) -> None:
    ids = [runs.create("items", lanes=1, created_by="ann", door="script").id for _ in range(7)]
    Run.update({Run.status: RunStatus.FAILED, Run.error_summary: "no answer", Run.ended_at: clock.now()}).execute()

    said = sluice("status").out

    assert [f"run {run_id}: no answer" in said for run_id in ids] == [False] * 2 + [True] * 5


def test_where_a_line_is_short_the_bar_goes_and_what_comes_next_stays(
    demo: None, environment: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Given a run whose list is to be asked for again
    process_heartbeat.Heartbeat("worker").write()
    run = start()
    summary = "list page 1, attempt 2 of 5: items: http://127.0.0.1:1 refuses connections"
    due = clock.now() + timedelta(seconds=100)
    Run.update({Run.error_summary: summary, Run.discovery_due_at: due}).where(Run.id == run.id).execute()
    environment.setenv("FORCE_COLOR", "1")
    environment.setenv("TERM", "xterm")

    def drawn(columns: int) -> str:
        environment.setenv("COLUMNS", str(columns))
        with progress.Display() as display:
            display.show(runs.get(run.id))
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capfd.readouterr().err).splitlines()[-1]

    # When it is watched on a narrow terminal, and on a wide one
    narrow, wide = drawn(80), drawn(200)

    # Then
    assert "━" not in narrow and re.search(r"list page 1, .*\.\.\.; again in (1 min )?\d+ s$", narrow.rstrip())
    assert len(narrow.rstrip()) <= 80
    assert "━" in wide and "refuses connections; again in" in wide


def test_a_note_that_is_too_long_loses_its_middle() -> None:
    note = "list page 1, attempt 2 of 5: items: http://127.0.0.1:1 refuses connections; again in 29 s"

    assert shortened(note, 100) == note
    assert shortened(note, 50) == "list page 1, attempt 2 of 5: ite...; again in 29 s"
    assert shortened(note.replace(";", ","), 40).endswith("...s, again in 29 s")
    assert len(shortened(note, 16)) <= 16


def test_a_length_of_time_is_said_in_two_units_at_most() -> None:
    assert [duration(s) for s in (42, 200, 7500, 100_000)] == ["42 s", "3 min 20 s", "2 h 5 min", "1 d 3 h"]


# --- schedules --------------------------------------------------------------------------------------------------------


def test_a_schedule_is_set_shown_held_and_taken_back_with_its_next_five_times(import_from: Any, sluice: Sluice) -> None:
    import_from("http://127.0.0.1:1", schedule=None)

    # When one is set, the words of its cron quoted or not
    said = sluice("schedule", "set", "items", "30", "6", "*", "*", "1-5", "--timezone", "Asia/Kolkata")

    # Then its next five times are printed, there and in UTC
    assert said.code == 0
    head, _, *times = said.out.splitlines()
    assert head.startswith("items: 30 6 * * 1-5 (At 06:30 on Monday through Friday), Asia/Kolkata; set by ")
    assert len(times) == 5
    assert all(re.search(r"06:30 IST  \w+ \S+ 01:00  in \d+ \w+", line) for line in times)

    # And it stands in the list, and as JSON
    assert "30 6 * * 1-5" in sluice("schedule").out
    (listed,) = sluice("schedule", "--json").json
    shown = sluice("schedule", "show", "items", "--json").json
    assert shown == listed
    assert (shown["catch_up"], shown["paused_at"], len(shown["next_at"])) == ("latest", None, 5)
    assert all(re.search(r"T01:00:00\+00:00$", at) for at in shown["next_at"])

    # And it can be changed, held, and taken back
    assert sluice("schedule", "set", "items", "@daily", "--catch-up", "none", "--json").json["catch_up"] == "none"
    paused = sluice("schedule", "pause", "items")
    assert "paused since" in paused.out and "`schedule resume items` continues" in paused.out
    assert len(sluice("schedule", "resume", "items", "--json").json["next_at"]) == 5
    assert sluice("schedule", "remove", "items").err == "items has no schedule any more\n"
    assert sluice("schedule", "--json").json == []


def test_a_preview_stores_nothing_and_needs_no_database(sluice: Sluice, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SLUICE_DATABASE_URL", "nonsense://nowhere")

    said = sluice("schedule", "preview", "0 */3 * * *", "--timezone", "Europe/Paris", "--json")

    assert said.code == 0
    assert (said.json["cron"], said.json["timezone"], len(said.json["next_at"])) == ("0 */3 * * *", "Europe/Paris", 5)
    assert "third hour" in said.json["in_words"]


def test_what_a_source_declares_is_told_before_a_scheduler_has_seen_it(import_from: Any, sluice: Sluice) -> None:
    import_from("http://127.0.0.1:1", schedule="0 */3 * * *")

    assert "; declared by its source\n" in sluice("schedule", "show", "items").out
    paused = sluice("schedule", "pause", "items", "--json")
    assert paused.json["declared"] and paused.json["paused_at"]


# --- watching ---------------------------------------------------------------------------------------------------------


class Eventful(clock.MovedClock):
    """A clock with which events happen after given seconds."""

    def __init__(self, *events: tuple[float, Callable[[], object]]) -> None:
        super().__init__()
        self.events = list(events)

    def sleep(self, seconds: float) -> bool:
        stopped = super().sleep(seconds)
        if self.events and self.elapsed_seconds >= self.events[0][0]:
            self.events.pop(0)[1]()
        return stopped


def test_watching_a_run_outlasts_a_database_that_is_away(
    environment: pytest.MonkeyPatch, postgres_server: str, redis_server: str, capfd: pytest.CaptureFixture[str]
) -> None:
    # Given a run, watched, whose database is taken away, and comes back with the run completed
    name = f"away_{os.getpid()}"
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    environment.setenv("SLUICE_DATABASE_URL", f"{postgres_server}/{name}")

    def execute(*statements: str) -> None:
        with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def take_away() -> None:
        database.disconnect()
        execute(f"ALTER DATABASE {name} RENAME TO {name}_gone")

    def give_back() -> None:
        execute(f"ALTER DATABASE {name}_gone RENAME TO {name}")
        with database.connection():
            Run.update({Run.status: RunStatus.COMPLETED, Run.ended_at: clock.now()}).execute()

    execute(f"CREATE DATABASE {name}")
    try:
        schema.migrate()
        with database.connection():
            run = runs.create("items", lanes=1, created_by="ann", door="script")
        clock.use(Eventful((5, take_away), (30, give_back)))

        # When it is watched to its end
        ended = progress.watch(run)

        # Then it said that it could not look, and looked again
        assert ended.status == RunStatus.COMPLETED
        assert "the database does not answer" in (said := capfd.readouterr().err)
        assert "asking again for 10 min 0 s\n" in said
    finally:
        forget()
        execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"DROP DATABASE IF EXISTS {name}_gone WITH (FORCE)")


def test_watching_a_run_gives_up_a_database_that_stays_away(
    environment: pytest.MonkeyPatch, moved_clock: clock.MovedClock
) -> None:
    environment.setenv("SLUICE_DATABASE_URL", f"postgresql://absent@127.0.0.1:{free_port()}/none")

    with pytest.raises(DependencyDown, match="the database does not answer"):
        progress.watch(Run(id=1, status=RunStatus.RUNNING))

    assert 600 <= moved_clock.elapsed_seconds < 602


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.fixture
def complete(sluice: Sluice, environment: pytest.MonkeyPatch) -> Callable[[str], dict[str, str]]:
    """Return what zsh is offered for a line, with the help of each."""

    def ask(typed: str) -> dict[str, str]:
        words = typed.split(" ")
        environment.setenv("_SLUICE_COMPLETE", "zsh_complete")
        environment.setenv("COMP_WORDS", typed)
        environment.setenv("COMP_CWORD", str(len(words) - 1))
        said = sluice()
        environment.delenv("_SLUICE_COMPLETE")
        assert (said.code, said.err) == (0, "")
        lines = said.out.splitlines()
        return dict(zip(lines[1::3], lines[2::3], strict=True))

    return ask


def test_a_shell_completes_commands_sources_runs_classes_and_zones(demo: None, complete: Any) -> None:
    run = start()

    assert complete("sluice pau") == {"pause": "Pause a running run; resume continues it."}
    assert complete("sluice run i") == {"items": api.base_url}
    assert complete("sluice schedule pause ") == {"items": api.base_url}
    assert complete("sluice cancel ") == {str(run.id): "items, running"}
    assert list(complete("sluice retry 7 --class tr")) == ["transient"]
    assert "Europe/Paris" in complete("sluice schedule preview 0 --timezone europe/p")


def test_completion_is_silent_where_there_is_nothing_to_ask(complete: Any, environment: pytest.MonkeyPatch) -> None:
    # Given no database: a look makes none
    assert complete("sluice cancel ") == {}
    assert not Path(os.environ["SLUICE_DATA_DIR"]).exists()

    # Given one that does not answer, and sources that cannot be read
    forget()
    environment.setenv("SLUICE_DATABASE_URL", f"postgresql://absent@127.0.0.1:{free_port()}/none")
    environment.setenv("SLUICE_SOURCES", "nowhere:SOURCES")
    assert complete("sluice cancel ") == {}
    assert complete("sluice run ") == {}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed_and_where_it_goes_said(
    sluice: Sluice, environment: pytest.MonkeyPatch, shell: str, tmp_path: Path
) -> None:
    (tmp_path / "sluice").touch(0o755)
    environment.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said = sluice("completion", shell)
    assert "PATH" not in said.err

    assert said.code == 0
    assert f"_SLUICE_COMPLETE={shell}_complete" in said.out
    assert f"sluice completion {shell}" in said.err
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=said.out, text=True, check=True)


def test_every_command_that_answers_can_answer_with_json() -> None:
    silent = {"worker", "scheduler", "redis", "monitor", "completion", "password"}

    def options(command: click.Command) -> set[str]:
        return {option for parameter in command.params for option in parameter.opts}

    whole = {name: cli.commands[name].load() for name in COMMANDS}  # type: ignore[attr-defined]
    whole |= {f"schedule {name}": command for name, command in schedule.commands.items()}
    assert {name for name, command in whole.items() if "--json" not in options(command)} == silent
