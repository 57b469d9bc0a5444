"""scripts/enqueue_import.py and `python -m workers`: what is printed where, and the exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import redis
from conftest import ROOT, free_port, wait_until

from mock_server import Fault
from sources import api
from workers import RateLimiter, clock, database, items, runs
from workers.caller import Usage
from workers.errors import RateLimited
from workers.failures import FailureClass
from workers.items import Outcome
from workers.tables import ItemStatus, Run, RunStatus

SCRIPT = str(ROOT / "scripts" / "enqueue_import.py")


@pytest.fixture
def place(environment, redis_server, tmp_path):
    """A data folder of the test's own, and a real Redis."""
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    environment.setenv("DEMO_API_URL", "http://127.0.0.1:1")
    return environment


def call(*arguments, folder=ROOT, seconds=60):
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
    )


def script(*arguments, **options):
    return call(SCRIPT, *arguments, **options)


def sluice(*arguments, **options):
    return call("-m", "workers", *arguments, **options)


def test_the_script_imports_inline_from_any_folder_in_a_new_database(place, mock_api, tmp_path):
    # Given a mock API, an empty data folder and a foreign working directory
    place.setenv("DEMO_API_URL", mock_api(items=30).url)

    # When the script does all by itself
    done = script("--inline", folder=tmp_path)

    # Then it prints the id on stdout, its progress on stderr, and ends with 0
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "100 %, 30 of 30" in done.stderr
    with database.connection():
        assert runs.get(1).status == RunStatus.COMPLETED


def test_an_inline_run_brings_its_own_redis_where_none_answers(place, mock_api):
    place.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    place.setenv("DEMO_API_URL", mock_api(items=5).url)

    done = script("--inline")

    assert done.returncode == 0, done.stderr


def test_a_run_with_failed_items_ends_with_4_and_a_failed_run_with_1(place, mock_api):
    place.setenv("SLUICE_BACKOFF_SECONDS", "0.01")
    place.setenv("DEMO_API_URL", mock_api(items=40, faults=(Fault("500", 0.5),), seed=8).url)
    assert script("--inline").returncode == 4

    place.setenv("DEMO_API_URL", "http://127.0.0.1:1")
    failed = script("--inline")
    assert failed.returncode == 1
    assert "refuses connections" in failed.stderr


def test_an_unknown_source_lists_the_known_ones_and_ends_with_2(place):
    done = script("nothing")

    assert done.returncode == 2
    assert done.stderr == "Error: There is no source named 'nothing'. Known sources: items.\n"


def test_a_second_run_says_behind_what_it_waits(place):
    assert script().stdout == "1\n"

    second = script()

    assert (second.returncode, second.stdout) == (0, "2\n")
    assert "run 2 waits behind run 1 of items, which is running" in second.stderr


def test_fresh_is_refused_where_the_source_does_not_allow_it(place, tmp_path):
    (tmp_path / "careful.py").write_text(
        "from sources import ItemSource\nclass Careful(ItemSource):\n    allow_fresh = False\nSOURCES = [Careful()]\n"
    )
    place.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    place.setenv("SLUICE_SOURCES", "careful:SOURCES")

    done = sluice("run", "--fresh")

    assert done.returncode == 2
    assert "set allow_fresh = True on Careful" in done.stderr


def test_a_redis_that_is_away_is_no_reason_not_to_take_an_order(place):
    place.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")

    done = script()

    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "the reaper will send it" in done.stderr


def test_a_database_that_is_away_ends_with_3(place):
    place.setenv("SLUICE_DATABASE_URL", f"postgresql://nobody@127.0.0.1:{free_port()}/none")

    done = sluice("status")

    assert done.returncode == 3
    assert "the database does not answer" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SLUICE_DATABASE_URL", "mysql://x/y", "must begin with sqlite:/// or postgresql://"),
        ("SLUICE_DATABASE_URL", "postgresql://u:pa#ss@h/db", "special characters of the password as %XX"),
        ("SLUICE_DATABASE_URL", "sqlite://here.db", "must name a file that processes can share"),
        ("SLUICE_BROKER_URL", "http://x", "SLUICE_BROKER_URL must begin with redis://"),
        ("SLUICE_WORKER_THREADS", "none", "SLUICE_WORKER_THREADS cannot be used"),
        ("SLUICE_SOURCES", "not_here:SOURCES", "names a module that is not here"),
        ("SLUICE_DATABASE_URL", "sqlite:////proc/nope/sluice.db", "cannot be written"),
    ],
)
def test_a_bad_setting_is_one_sentence_with_the_fix_and_ends_with_2(place, variable, value, said):
    place.setenv(variable, value)

    done = sluice("run")

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "pa#ss" not in done.stderr


def test_sources_that_cannot_be_imported_are_named_with_the_line_that_fails(place, tmp_path):
    (tmp_path / "broken.py").write_text("SOURCES = [1 / 0]")
    place.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    place.setenv("SLUICE_SOURCES", "broken:SOURCES")

    done = sluice("sources")

    assert done.returncode == 2
    assert f"broken cannot be imported: ZeroDivisionError: division by zero ({tmp_path}/broken.py:1)" in done.stderr


def test_a_password_with_special_characters_reaches_postgres_as_it_is(place):
    place.setenv("SLUICE_DATABASE_URL", f"postgresql://ann:p%40ss%231@127.0.0.1:{free_port()}/sluice")

    assert database.connect().connect_params["password"] == "p@ss#1"


def test_watching_a_run_ends_with_130_on_ctrl_c_and_leaves_the_run_alone(place):
    # Given a run that nobody works on, watched
    watching = subprocess.Popen(
        [sys.executable, SCRIPT, "--wait"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stdout.readline() == "1\n"
    time.sleep(0.5)

    # When the watcher is interrupted
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=10)

    # Then only the watching has ended
    assert watching.returncode == 130
    with database.connection():
        assert runs.get(1).status == RunStatus.RUNNING


def test_status_answers_in_json_and_in_a_table(place):
    script()

    told = json.loads(sluice("status", "1", "--json").stdout)

    assert (told["id"], told["source"], told["status"], told["percent"]) == (1, "items", "running", None)
    assert "items" in sluice("status").stdout
    assert json.loads(sluice("sources", "--json").stdout)[0]["limits"] == ["500/20 s", "2000/100 s"]


def test_status_groups_what_failed_and_takes_nothing_an_api_said_for_its_own(place):
    # Given a run with three failed items, two of them alike, whose reasons would steer a terminal, or break a table
    script()
    reasons = {"1": "no [/red] item 1 \x1b[2J", "2": "no [/red] item 2 \x1b[2J", "\x1b[2J[/x]": "gone"}
    with database.connection():
        items.add(1, [{"external_id": i, "due_at": clock.now(), "status": "pending"} for i in reasons])
        claim = items.claim(1, 3, lease_seconds=60)
        failed = [
            Outcome(i, ItemStatus.FAILED, failure_class=FailureClass.BAD_DATA, reason=reasons[i.external_id])
            for i in claim.items
        ]
        items.commit(1, claim, failed, Usage(), lambda models: None)

    # When its status is asked for
    told, shown = json.loads(sluice("status", "1", "--json").stdout), sluice("status", "1")

    # Then there are two groups, told as they are
    assert [(group["count"], group["failure_class"]) for group in told["failures"]] == [
        (2, "bad_data"),
        (1, "bad_data"),
    ]
    assert "no [/red] item" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert shown.returncode == 0


def test_status_tells_how_its_budget_is_paused_and_paced(place, redis_server):
    # Given a run whose API has refused a request without cause
    script()
    with redis.Redis.from_url(redis_server) as client:
        limiter = RateLimiter(api.budget, client, prefix=os.environ["SLUICE_PREFIX"])
        caller = limiter.caller()
        with pytest.raises(RateLimited):
            caller.heard(caller.take(5), 429, {"Retry-After": "600"})

    # When its status is asked for
    told = json.loads(sluice("status", "1", "--json").stdout)

    # Then it says until when, and what else holds it back
    assert re.match(r"the API answered 429, Retry-After 600: paused for [56]\d\d s, until .* UTC$", told["why"])
    assert told["why"].partition(": paused")[0] in sluice("status", "1").stdout
    assert told["slowed"] in sluice("status", "1").stdout


def test_a_scheduled_run_is_started_by_the_scheduler_and_can_be_pulled_forward(place):
    # Given a run for a far day
    assert script("--at", "2099-01-01T00:00").stdout == "1\n"
    assert sluice("scheduler", "--once").returncode == 0
    with database.connection():
        assert runs.get(1).status == RunStatus.SCHEDULED

    # When it is pulled to now
    assert sluice("reschedule", "items").stdout == "1\n"

    # Then it runs; and there is no other to pull
    with database.connection():
        assert runs.get(1).status == RunStatus.RUNNING
    assert "No run of items is scheduled" in sluice("reschedule", "items").stderr


def test_the_whole_procfile_starts_imports_and_stops_leaving_nothing(place, tmp_path):
    # Given free ports, and the Procfile as it is
    ports = {name: free_port() for name in ("REDIS", "MOCK", "MONITOR")}
    place.delenv("DEMO_API_URL")
    place.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{ports['REDIS']}/0")
    place.setenv("SLUICE_MOCK_PORT", str(ports["MOCK"]))
    place.setenv("SLUICE_MONITOR_PORT", str(ports["MONITOR"]))
    place.setenv("PATH", f"{sys.prefix}/bin:/usr/bin:/bin")
    log = tmp_path / "honcho.log"
    said = log.read_text
    with log.open("w") as writing:
        honcho = subprocess.Popen([f"{sys.prefix}/bin/honcho", "start"], cwd=ROOT, stdout=writing, stderr=writing)

    # When an import is ordered before anything is up, and honcho is interrupted once it runs
    try:
        assert script().returncode == 0
        wait_until(lambda: "Sluice is ready: http://127.0.0.1:" in said(), 40, "the page")
        with database.connection():
            wait_until(lambda: Run.get_by_id(1).succeeded_count > 50, 40, "the import")
    finally:
        honcho.send_signal(signal.SIGINT)
        began = time.monotonic()
        honcho.wait(15)

    # Then all of it ends before honcho has to kill, and nobody missed Redis while stopping
    assert time.monotonic() - began < 5
    stopping = said().partition("SIGINT received")[2]
    assert "SIGKILL" not in stopping
    assert "does not answer" not in stopping and "Traceback" not in stopping
    for name in ("worker", "redis", "scheduler", "monitor", "mock"):
        assert f"{name}.1 stopped (rc=0)" in stopping
    left = subprocess.run(["pgrep", "-f", str(ports["REDIS"])], capture_output=True, text=True, check=False).stdout
    assert left == ""
