"""A tenant of a source that has none: refused at every door of a person, for two runs of it would import the same."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from workers.cli import exit_codes
from workers.cli.command_line import cli
from workers.control import runner
from workers.errors import UsageError
from workers.monitor.actions import run_form, schedule_actions
from workers.records.tables import Run, Schedule
from workers.scheduling import preview


def gives_each_its_own(self: Any, run: Any) -> Any:
    return self.connector


COMMANDS = {
    "run": ["run", "items", "--tenant", "x"],
    "run without a name": ["run", "--tenant", "x"],
    "run later": ["run", "items", "--tenant", "x", "--at", "2090-01-01T00:00"],
    "run inline": ["run", "items", "--tenant", "x", "--inline"],
    "schedule": ["schedule", "set", "items", "0 3 * * *", "--tenant", "x"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_line_refuses_it_and_nothing_is_made(import_from: Callable[..., Any], command: str) -> None:
    import_from("http://127.0.0.1:1")

    result = CliRunner().invoke(cli, COMMANDS[command])

    assert isinstance(result.exception, UsageError)
    assert "items has no tenants" in str(result.exception)
    assert exit_codes.of(result.exception) == 2
    assert (Run.select().count(), Schedule.select().count()) == (0, 0)


def test_the_form_refuses_it(import_from: Callable[..., Any]) -> None:
    import_from("http://127.0.0.1:1")
    with pytest.raises(UsageError, match="items has no tenants"):
        run_form._begin(("items", run_form.NEW, "x"), False)
    assert Run.select().count() == 0


def test_the_form_of_schedules_refuses_it(import_from: Callable[..., Any]) -> None:
    import_from("http://127.0.0.1:1")
    with pytest.raises(UsageError, match="items has no tenants"):
        preview.of_setting("items", "x", "0 3 * * *", "UTC", "latest")
    assert not schedule_actions.set_schedule("items", "x", "0 3 * * *", "UTC", "latest").is_done
    assert Schedule.select().count() == 0


def test_a_source_that_tells_tenants_apart_takes_it(import_from: Callable[..., Any]) -> None:
    import_from("http://127.0.0.1:1", get_connector=gives_each_its_own)
    result = CliRunner().invoke(cli, COMMANDS["schedule"])
    assert result.exception is None or result.exit_code == 0
    assert [one.tenant for one in Schedule.select()] == ["x"]
    assert runner.start("items", tenant="x", who="me", door="test", send=False).tenant == "x"
