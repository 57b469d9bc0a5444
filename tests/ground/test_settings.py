"""Settings: all are documented, errors name the variable, honcho's limit is observed, and the environment wins."""

import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from workers.errors import ConfigurationError
from workers.settings import Settings, get_settings

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "settings.md"


def variable_of(name: str, field: FieldInfo) -> str:
    return str(field.validation_alias or f"SLUICE_{name.upper()}")


def as_text(value: object) -> str:
    """Write a value as one would set it."""
    if isinstance(value, tuple):
        return ",".join(as_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


FIELDS = {variable_of(name, field): (name, field) for name, field in Settings.model_fields.items()}


def row_of(variable: str, field: FieldInfo) -> str:
    default = as_text(field.default)
    return f"| `{variable}` | {f'`{default}`' if default else ''} | {field.description} |"


ROWS = {variable: row_of(variable, field) for variable, (_, field) in FIELDS.items()}
WANTED = "docs/settings.md needs this table:\n| variable | default | meaning |\n|---|---|---|\n" + "\n".join(
    ROWS.values()
)


def documented() -> dict[str, tuple[str, str]]:
    """Read variable -> (default, meaning) from the table of the docs."""
    text = TABLE.read_text() if TABLE.exists() else ""
    rows = re.findall(r"^\|\s*`(\w+)`\s*\|([^|]*)\|([^|]*)\|", text, flags=re.MULTILINE)
    return {
        variable: (default.strip().strip("`").strip('"'), meaning.strip())
        for variable, default, meaning in rows
        if variable.startswith("SLUICE_") or variable in FIELDS
    }


# --- the docs ---------------------------------------------------------------------------------------------------------


def test_every_setting_stands_in_the_docs_and_no_other() -> None:
    rows = documented()

    assert sorted(FIELDS.keys() - rows.keys()) == [], WANTED
    assert sorted(rows.keys() - FIELDS.keys()) == [], "docs/settings.md lists variables that nothing reads"
    assert [variable for variable, (_, meaning) in rows.items() if not meaning] == [], WANTED


def test_the_docs_give_the_defaults_that_are(environment: pytest.MonkeyPatch) -> None:
    # Given: an environment that says what the docs say
    environment.delenv("SLUICE_DATA_DIR")
    environment.delenv("SLUICE_PREFIX")
    defaults = Settings(_env_file=None).model_dump()
    for variable, (default, _) in documented().items():
        environment.setenv(variable, default)

    # When
    said = Settings(_env_file=None).model_dump()

    # Then
    assert documented(), WANTED
    assert {name: value for name, value in said.items() if value != defaults[name]} == {}, WANTED


def test_every_setting_has_a_meaning() -> None:
    assert [variable for variable, (_, field) in FIELDS.items() if not (field.description or "").endswith(".")] == []


# --- bad values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SLUICE_WORKER_PROCESSES", "0"),
        ("SLUICE_WORKER_THREADS", "many"),
        ("SLUICE_WORKER_THREADS", ""),
        ("SLUICE_LEASE_SECONDS", "inf"),
        ("SLUICE_TURN_SECONDS", "nan"),
        ("SLUICE_SOURCES", "shop/sources.py"),
        ("SLUICE_PREFIX", "two words"),
        ("SLUICE_MONITOR_PORT", "80000"),
        ("SLUICE_MAX_BODY_BYTES", "20 MB"),
        ("SLUICE_LOG_LEVEL", "LOUD"),
        ("SLUICE_LOG_FORMAT", "xml"),
        ("SLUICE_BACKOFF_SECONDS", "30,soon"),
        ("SLUICE_BACKOFF_SECONDS", "30,-5"),
        ("SLUICE_BACKOFF_SECONDS", "30,nan"),
        ("SLUICE_BACKOFF_SECONDS", "30,inf"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(
    environment: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    environment.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=rf"^{variable} cannot be used: .*docs/settings\.md"):
        get_settings()


@pytest.mark.parametrize("variable", [v for v, (_, field) in FIELDS.items() if field.annotation in (int, float)])
def test_every_number_has_bounds(environment: pytest.MonkeyPatch, variable: str) -> None:
    environment.setenv(variable, "-1")

    with pytest.raises(ConfigurationError, match=variable):
        get_settings()


def test_a_refusal_does_not_repeat_the_value(environment: pytest.MonkeyPatch) -> None:
    # Given: a password in the wrong place
    environment.setenv("SLUICE_SOURCES", "postgresql://sluice:s3cret@db/sluice")

    with pytest.raises(ConfigurationError) as refused:
        get_settings()

    assert "s3cret" not in str(refused.value)


# --- what is read, and from where -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "honcho", "drain"),
    [("", "", 10.0), ("", "worker.1", 4.0), ("2", "worker.1", 2.0), ("60", "", 60.0), ("60", "worker.1", 4.0)],
)
def test_under_honcho_a_worker_drains_within_four_seconds(
    environment: pytest.MonkeyPatch, asked: str, honcho: str, drain: float
) -> None:
    # Given
    environment.setenv("HONCHO_PROCESS_NAME", honcho)
    if asked:
        environment.setenv("SLUICE_DRAIN_SECONDS", asked)

    # Then
    assert get_settings().drain == drain


def test_the_env_file_is_read_and_the_environment_wins(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given
    environment.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "# a comment\nSLUICE_WORKER_THREADS=3\nSLUICE_WORKER_PROCESSES=5\nSLUICE_BACKOFF_SECONDS=1, 2\nOTHER=ignored\n"
    )
    environment.setenv("SLUICE_WORKER_PROCESSES", "7")

    # When
    settings = get_settings()

    # Then
    assert (settings.worker_threads, settings.worker_processes) == (3, 7)
    assert settings.backoff_seconds == (1.0, 2.0)
    assert settings.batch_size == 25


def test_settings_are_read_once_and_cannot_be_changed(environment: pytest.MonkeyPatch) -> None:
    # Given
    settings = get_settings()

    # When
    environment.setenv("SLUICE_WORKER_THREADS", "99")

    # Then
    assert get_settings() is settings
    with pytest.raises(ValueError, match="frozen"):
        settings.worker_threads = 99  # type: ignore[misc]


def test_what_is_not_given_follows_from_what_is(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given
    environment.setenv("SLUICE_REDIS_URL", "redis://cache/3")
    environment.setenv("SLUICE_BACKOFF_SECONDS", "1,2,3")

    # When
    settings = get_settings()

    # Then
    assert settings.broker == "redis://cache/3"
    assert settings.database == f"sqlite:///{tmp_path}/data/sluice.db"
    assert settings.max_attempts == 4
