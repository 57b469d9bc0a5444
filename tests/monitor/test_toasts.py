"""Each open page shows a toast when a run ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.machine import free_port
from tests.helpers.pages import again, draw
from workers import clock
from workers.connections import database
from workers.records import schema
from workers.records.tables import Run, RunStatus


@pytest.fixture(autouse=True)
def sqlite(environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    environment.setenv("SLUICE_DATABASE_URL", f"sqlite:///{tmp_path}/sluice.db")
    environment.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    environment.setenv("SLUICE_BROKER_URL", "stub://")
    schema.migrate()
    with database.connection():
        yield


def running(**values: Any) -> Run:
    now = clock.now()
    usual = {"source": "items", "status": RunStatus.RUNNING, "lanes": 4, "created_by": "me", "total_count": 1000}
    return Run.create(**usual | {"started_at": now, "discovered_at": now} | values)


def end(run: Run, status: RunStatus, **values: Any) -> None:
    Run.update(status=status, ended_at=clock.now(), **values).where(Run.id == run.id).execute()


@pytest.mark.parametrize(
    ("status", "failed", "said", "icon"),
    [
        (RunStatus.COMPLETED, 0, "Run 1 of items completed: 1,000 items", ":material/check_circle:"),
        (
            RunStatus.COMPLETED,
            37,
            "Run 1 of items completed with failures: 37 of 1,000 items",
            ":material/warning:",
        ),
        (RunStatus.FAILED, 0, "Run 1 of items failed", ":material/error:"),
        (RunStatus.CANCELLED, 0, "Run 1 of items was cancelled", ":material/stop_circle:"),
    ],
)
@pytest.mark.parametrize("page", ["", "system"])
def test_the_end_of_a_run_is_shown_once(page: str, status: RunStatus, failed: int, said: str, icon: str) -> None:
    # Given
    run = running()
    test = draw(page)
    assert not test.toast

    # When
    end(run, status, failed_count=failed)

    # Then
    again(test)
    assert [(toast.value, toast.icon) for toast in test.toast] == [(said, icon)]
    again(test)
    assert not test.toast


def test_a_run_that_fails_before_a_page_showed_it_is_reported() -> None:
    # Given
    test = draw()

    # When
    end(running(), RunStatus.FAILED)

    # Then
    again(test)
    assert [toast.value for toast in test.toast] == ["Run 1 of items failed"]


def test_a_run_that_is_retried_is_reported_with_its_new_outcome() -> None:
    # Given
    run = running()
    test = draw()
    end(run, RunStatus.COMPLETED, failed_count=3)
    again(test)

    # When
    Run.update(status=RunStatus.RUNNING, ended_at=None).where(Run.id == run.id).execute()
    again(test)
    end(run, RunStatus.COMPLETED, failed_count=0)

    # Then
    again(test)
    assert [toast.value for toast in test.toast] == ["Run 1 of items completed: 1,000 items"]


def test_a_new_session_is_not_shown_earlier_ends() -> None:
    end(running(), RunStatus.FAILED)
    assert not draw().toast


def test_a_pause_is_no_end() -> None:
    run = running()
    test = draw()
    Run.update(status=RunStatus.PAUSED).where(Run.id == run.id).execute()
    assert not again(test).toast
