"""Three short seeds of the fault run, at the same time: each waits most of the time. The third is on Postgres."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.schedule import schedule
from tests.helpers.machine import missing
from tests.helpers.postgres_folder import postgres_folder

SEEDS = {1: "sqlite", 2: "sqlite", 3: "postgres"}
#: A run that hangs says so after 300 s; a fleet takes a while to come up, and to go away.
PATIENCE_SECONDS = 400


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The commands of all seeds, started, and where each writes."""
    started = {}
    for seed, database in SEEDS.items():
        if database == "postgres" and postgres_folder() is None:
            continue
        folder = tmp_path_factory.mktemp(f"seed{seed}")
        line = [sys.executable, "-m", "tests.faults", "--short", "--seeds", "1", "--first", str(seed)]
        with (folder / "answer").open("wb") as answer, (folder / "story").open("wb") as story:
            process = subprocess.Popen([*line, "--database", database, "--json"], stdout=answer, stderr=story)
        started[seed] = process, folder
    yield started
    for process, _ in started.values():
        process.terminate()
        process.wait(60)


def ended(process: "subprocess.Popen[bytes]", folder: Path) -> tuple[int, dict, str]:
    """Wait for a command; return its exit code, what it answered, and what it said meanwhile."""
    code = process.wait(PATIENCE_SECONDS)
    story = (folder / "story").read_text()
    answer = (folder / "answer").read_text()
    assert answer, story
    return code, json.loads(answer)[0], story


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_dies_the_run_completes_by_itself_with_exact_counts_and_no_429(commands, seed):
    # Given a run that everything its seed says has struck
    if seed not in commands:
        missing("PostgreSQL")
    code, facts, story = ended(*commands[seed])
    faults = schedule(seed, postgres=SEEDS[seed] == "postgres", short=True)
    assert [struck["fault"]["kind"] for struck in facts["struck"]] == [fault.kind for fault in faults]

    # Then every property holds, and the command says so
    assert facts["breaches"] == [], story
    assert code == 0
