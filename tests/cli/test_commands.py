"""scripts/enqueue_import.py and `python -m workers`: what is printed where, and the exit codes."""

import json
import signal
import subprocess
import sys
import time

import pytest

from mock_server import Fault
from tests.helpers.machine import ROOT, free_port, wait_until
from workers.connections import database
from workers.records import runs
from workers.records.tables import Run, RunStatus

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
    # Given a run that was started without Redis
    address = f"127.0.0.1:{free_port()}"
    place.setenv("SLUICE_REDIS_URL", f"redis://{address}/0")
    place.setenv("DEMO_API_URL", mock_api(items=5).url)
    assert script().stdout == "1\n"

    # When a run is to be done inline
    done = script("--inline")

    # Then it is that one, with a Redis of its own
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "run 1 is active: this process continues it" in done.stderr
    assert f"Redis is served at {address} until this ends" in done.stderr


def test_a_run_with_failed_items_ends_with_4_and_a_failed_run_with_1(place, mock_api):
    place.setenv("SLUICE_BACKOFF_SECONDS", "0.01")
    place.setenv("DEMO_API_URL", mock_api(items=40, faults=(Fault("500", 0.5),), seed=8).url)
    inline = script("--inline", "--json")
    assert (inline.returncode, json.loads(inline.stdout)["label"]) == (4, "completed with failures")
    assert "`status 1 --failed` lists what failed, `retry 1` retries it" in inline.stderr
    watched = sluice("status", "1", "--watch", "--json")
    assert (watched.returncode, json.loads(watched.stdout)["label"]) == (4, "completed with failures")

    place.setenv("DEMO_API_URL", "http://127.0.0.1:1")
    failed = script("--inline")
    assert failed.returncode == 1
    assert "refuses connections" in failed.stderr


def test_a_redis_that_is_away_is_no_reason_not_to_take_an_order(place):
    place.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")

    done = script()

    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "the scheduler sends unsent messages later" in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [(signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ("--json",))],
    ids=["ctrl-c", "term"],
)
def test_watching_a_run_ends_with_its_signal_and_leaves_the_run_alone(place, number, code, options):
    # Given a run on which no worker works, watched
    watching = subprocess.Popen(
        [sys.executable, SCRIPT, "--wait", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "run 1 running" in watching.stderr.readline()

    # When the watcher is interrupted
    watching.send_signal(number)
    answer, said = watching.communicate(timeout=10)

    # Then only the watching has ended; and it answers with the run as it is now, where it is to answer with one
    assert watching.returncode == code
    assert "run 1 continues in the background; `status 1 --watch` watches it again, `cancel 1` ends it" in said
    assert json.loads(answer)["status"] == "running" if options else answer == "1\n"
    with database.connection():
        assert runs.get(1).status == RunStatus.RUNNING


def test_an_argument_that_no_database_can_store_is_refused_before_anything_is_done(place):
    refused = subprocess.run(
        [sys.executable, "-m", "workers", "run", "--tenant", b"\xff"], cwd=ROOT, capture_output=True, check=False
    )

    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"is not UTF-8" in refused.stderr


def test_an_answer_that_nobody_reads_is_no_failure(place):
    line = f"set -o pipefail; {sys.executable} -m workers sources | head -c 0"

    cut = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (cut.returncode, cut.stderr) == (141, "")


def test_a_scheduled_run_is_started_by_the_scheduler_and_can_be_pulled_forward(place, tmp_path):
    # Given a run for a far day, of a source that has no schedule
    (tmp_path / "plain.py").write_text(
        "from sources import ItemSource\nclass Plain(ItemSource):\n    schedule = None\nSOURCES = [Plain()]\n"
    )
    place.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    place.setenv("SLUICE_SOURCES", "plain:SOURCES")
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
        ordered = int(script().stdout)  # not 1 where the scheduler was faster
        wait_until(lambda: "Sluice is ready: http://127.0.0.1:" in said(), 40, "the page")
        with database.connection():
            wait_until(lambda: Run.get_by_id(ordered).succeeded_count > 50, 40, "the import")
    finally:
        honcho.send_signal(signal.SIGINT)
        began = time.monotonic()
        honcho.wait(15)

    # Then all of it ends before honcho has to kill, and no process lost Redis while stopping
    assert time.monotonic() - began < 5
    stopping = said().partition("SIGINT received")[2]
    assert "SIGKILL" not in stopping
    assert "does not answer" not in stopping and "Traceback" not in stopping
    for name in ("worker", "redis", "scheduler", "monitor", "mock"):
        assert f"{name}.1 stopped (rc=0)" in stopping
    left = subprocess.run(["pgrep", "-f", str(ports["REDIS"])], capture_output=True, text=True, check=False).stdout
    assert left == ""
