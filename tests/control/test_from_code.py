"""A program starts, steers and reads runs by the public functions, which connect to the database themselves."""

import inspect
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import workers
from tests.helpers.machine import ROOT, free_port
from workers import clock, settings
from workers.connections import database
from workers.messaging import broker
from workers.records.tables import Run, RunEvent, RunStatus

#: For what is decided in Python: the other database would only cost time.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PAGE = ROOT / "docs" / "from-code.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def sent(moved_clock: object, import_from: Callable[..., Any]) -> Iterator[list[str]]:
    """The actors to which this thread sends messages; one registered source; and no connection held open."""
    import_from("http://127.0.0.1:1")
    names: list[str] = []
    database.db.close()
    with broker.captured(lambda name, args, delay: names.append(name)):
        yield names


def timeline(run_id: int) -> list[tuple[str, str, str]]:
    with database.connection():
        rows = RunEvent.select().where(RunEvent.run_id == run_id).order_by(RunEvent.id)
        return [(event.what, event.who, event.door) for event in rows]


# --- the acts


def test_a_run_is_started_and_steered_and_the_timeline_names_who_did_it(sent: list[str]) -> None:
    # When
    run = workers.start_run("items")
    paused = workers.pause(run.id, who="nightly.py")
    adjusted = workers.adjust(run.id, lanes=3, priority=7)
    resumed = workers.resume(run.id, door="webhook")
    cancelled = workers.cancel(run.id, reason="no longer needed")

    # Then
    assert [one.status for one in (run, paused, adjusted, resumed, cancelled)] == [
        *(RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.CANCELLED)
    ]
    assert (adjusted.lanes, adjusted.priority) == (3, 7)
    by = {(who, door) for _, who, door in timeline(run.id)}
    assert ("nightly.py", "code") in by
    assert any(door == "webhook" for _, door in by)
    assert "discover" in sent


def test_no_act_leaves_its_connection_open(sent: list[str]) -> None:
    run = workers.start_run()

    workers.run_stats(run.id)

    assert database.db.is_closed()


@ON_SQLITE
def test_a_connection_that_the_program_holds_stays_open(sent: list[str]) -> None:
    with database.connection():
        workers.run_stats(workers.start_run().id)

        assert not database.db.is_closed()


@ON_SQLITE
def test_a_run_at_a_time_is_scheduled_in_utc_unless_the_time_has_an_offset(sent: list[str]) -> None:
    # Given
    naive = (clock.now() + timedelta(days=1)).replace(tzinfo=None)

    # When
    first = workers.start_run("items", at=naive)
    pulled = workers.reschedule("items")

    # Then
    assert (first.status, first.scheduled_at) == (RunStatus.SCHEDULED, naive.replace(tzinfo=UTC))
    assert (pulled.id, pulled.status) == (first.id, RunStatus.RUNNING)


@ON_SQLITE
def test_failed_items_are_retried_by_class(sent: list[str]) -> None:
    # Given a run that failed while it read its list
    run = workers.start_run("items")
    with database.connection():
        Run.update(status=RunStatus.FAILED, ended_at=clock.now()).where(Run.id == run.id).execute()

    # Then there is nothing of that class; but the list is read on
    with pytest.raises(workers.UsageError):
        workers.retry(run.id, failure_class=workers.FailureClass.NOT_FOUND)
    assert workers.retry(run.id) == 0
    assert workers.run_stats(run.id).status == RunStatus.RUNNING


@ON_SQLITE
def test_a_stuck_pause_is_forced(sent: list[str], moved_clock: clock.MovedClock) -> None:
    # Given a run that is pending though no other one is active
    run = workers.start_run("items")
    with database.connection():
        Run.update(status=RunStatus.PENDING).where(Run.id == run.id).execute()

    # When it is too early, that is refused; five minutes later it is started
    with pytest.raises(workers.UsageError, match="it can be forced in"):
        workers.force(run.id)
    moved_clock.sleep(301)
    assert workers.force(run.id)
    assert workers.run_stats(run.id).status == RunStatus.RUNNING


@ON_SQLITE
def test_a_run_is_adjusted_in_all_that_is_asked_or_in_nothing(sent: list[str]) -> None:
    run = workers.start_run("items")

    with pytest.raises(workers.UsageError):
        workers.adjust(run.id, lanes=2, priority=101)

    assert workers.run_stats(run.id).lanes == run.lanes


@ON_SQLITE
def test_without_redis_the_change_is_saved(sent: list[str], house: pytest.MonkeyPatch) -> None:
    # Given
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    settings.get_settings.cache_clear()

    # When
    run = workers.start_run("items")

    # Then
    assert workers.pause(run.id).status == RunStatus.PAUSED
    assert workers.resume(run.id).status == RunStatus.RUNNING
    assert workers.cancel(run.id).status == RunStatus.CANCELLED


# --- the errors


@ON_SQLITE
@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda: workers.start_run("absent"), workers.UnknownSource),
        (lambda: workers.start_run("items", tenant=""), workers.UsageError),
        (lambda: workers.start_run("items", even_if_empty=True), workers.UsageError),
        (lambda: workers.start_run("items", at=datetime(2020, 1, 1)), workers.UsageError),
        (lambda: workers.start_run("items", who=""), workers.UsageError),
        (lambda: workers.start_run("items", door="d" * 21), workers.UsageError),
        (lambda: workers.reschedule("items"), workers.UsageError),
        (lambda: workers.pause(404), workers.UnknownRun),
        (lambda: workers.resume(404), workers.UnknownRun),
        (lambda: workers.cancel(404), workers.UnknownRun),
        (lambda: workers.retry(404), workers.UnknownRun),
        (lambda: workers.adjust(404, lanes=2), workers.UnknownRun),
        (lambda: workers.adjust(404), workers.UsageError),
        (lambda: workers.force(404), workers.UnknownRun),
        (lambda: workers.run_stats(404), workers.UnknownRun),
    ],
)
def test_an_act_that_cannot_be_raises_what_its_docstring_names(
    sent: list[str], act: Callable[[], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        act()


@ON_SQLITE
def test_a_run_that_has_ended_cannot_be_paused(sent: list[str]) -> None:
    run = workers.start_run("items")
    workers.cancel(run.id)

    with pytest.raises(workers.InvalidTransition):
        workers.pause(run.id)


def test_a_database_without_tables_is_named_and_so_is_the_repair(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("SLUICE_DATABASE_URL", f"sqlite:///{tmp_path}/empty.db")

    with pytest.raises(workers.ConfigurationError, match="migrate"):
        workers.run_stats(1)


# --- the documented examples, as plain scripts


def script(text: str, variables: dict[str, str], *arguments: str) -> str:
    """Run a program in this folder, and return what it printed."""
    command = [sys.executable, "-W", "error::ResourceWarning", *(arguments or ("-c", text))]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def a_worker(variables: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "workers", "worker-process"]
    worker = subprocess.Popen(command, cwd=ROOT, env={"PATH": os.environ["PATH"], **variables})
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def test_the_documented_examples_run_as_plain_scripts(
    mock_api: Callable[..., Any], redis_server: str, tmp_path: Path
) -> None:
    # Given an installation, and workers for the first example only
    waiting, steering = BLOCKS
    variables = {
        "SLUICE_DATA_DIR": str(tmp_path),
        "SLUICE_REDIS_URL": redis_server,
        "SLUICE_PREFIX": tmp_path.name,
        "SLUICE_WORKER_THREADS": "2",
        "DEMO_API_URL": mock_api(items=12, limits="500/20").url,
    }
    script("", variables, "-m", "workers", "migrate", "--create-models")

    # When
    with a_worker(variables):
        printed = script(waiting, variables)
    steered = script(steering, variables)

    # Then
    assert printed.splitlines()[-1] == "completed: 12 succeeded, 0 failed"
    assert len(steered.splitlines()) == 1, "why nothing of it is stuck"


# --- arguments that cannot be -----------------------------------------------------------------------------------------

NUL, HALF, LARGE = "a\0", "a\ud800", 2**70
BAD_TEXTS = [5, b"a", ["a"], NUL, HALF]
BAD_NUMBERS = ["7", 1.5, True, float("nan"), LARGE]
#: Function -> parameter -> values that a program could pass by mistake.
CANNOT_BE: dict[str, dict[str, list[Any]]] = {
    "start_run": {
        "source": BAD_TEXTS,
        "at": ["2030-01-01", date(2030, 1, 1), 0, datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))],
        "tenant": BAD_TEXTS,
        "fresh": ["no", 1, None],
        "even_if_empty": ["no", 1, None],
        "who": BAD_TEXTS,
        "door": [*BAD_TEXTS, None],
    },
    "reschedule": {"source": [*BAD_TEXTS, None], "at": ["x", 0], "tenant": BAD_TEXTS},
    "pause": {"run_id": [*BAD_NUMBERS, None], "who": BAD_TEXTS},
    "resume": {"run_id": [*BAD_NUMBERS, None], "who": BAD_TEXTS},
    "cancel": {"run_id": [*BAD_NUMBERS, None], "reason": BAD_TEXTS},
    "retry": {
        "run_id": [*BAD_NUMBERS, None],
        "failure_class": [*BAD_TEXTS, "no such class"],
        "fingerprint": BAD_TEXTS,
        "external_ids": ["abc", 5, None, [1], [NUL], (HALF,), deque([NUL])],
        "from_start": ["no", 1],
    },
    "adjust": {"run_id": [*BAD_NUMBERS, None], "lanes": [*BAD_NUMBERS, 0], "priority": [*BAD_NUMBERS, 101]},
    "force": {"run_id": [*BAD_NUMBERS, None], "who": BAD_TEXTS},
    "run_stats": {"run_id": [*BAD_NUMBERS, None]},
}


def good_arguments(name: str, run_id: int) -> dict[str, Any]:
    if name in ("start_run", "reschedule"):
        return {"source": "items"}
    return {"run_id": run_id} | ({"lanes": 2} if name == "adjust" else {})


@pytest.mark.parametrize(("name", "parameter"), [(name, of) for name, these in CANNOT_BE.items() for of in these])
def test_an_argument_that_cannot_be_is_refused_by_its_name_and_changes_nothing(
    sent: list[str], name: str, parameter: str
) -> None:
    run = workers.start_run("items")
    before = timeline(run.id)

    for value in CANNOT_BE[name][parameter]:
        with pytest.raises(workers.UsageError) as refused:
            getattr(workers, name)(**good_arguments(name, run.id) | {parameter: value})
        assert parameter in str(refused.value) or value in ("no such class", 0, 101), str(refused.value)

    assert timeline(run.id) == before
    with database.connection():
        assert Run.select().count() == 1


def test_every_parameter_of_the_public_functions_is_tried() -> None:
    shared = {"who", "door", "tenant"}
    for name, tried in CANNOT_BE.items():
        assert set(inspect.signature(getattr(workers, name)).parameters) - shared <= set(tried), name


@ON_SQLITE
def test_an_empty_name_is_no_source_though_there_is_only_one(sent: list[str]) -> None:
    with pytest.raises(workers.UnknownSource):
        workers.start_run("")
