"""Reads and checks all settings: SLUICE_* environment variables and .env, with types, defaults and descriptions.

No other module reads the environment. docs/settings.md has the same table; a test compares them.
"""

import os
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from workers.errors import ConfigurationError

#: honcho kills the other processes five seconds after the first one ends.
HONCHO_DRAIN_SECONDS = 4.0

#: A wait of at most a day, in seconds.
Wait = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]

#: Words separated by commas, in lower case.
Names = Annotated[tuple[str, ...], NoDecode]

#: The output of `python -m workers password`, or empty. No character has a meaning in a shell or in a .env file.
_HASH = r"^(scrypt:\d{1,2}:\d{1,2}:\d{1,2}:[A-Za-z0-9_-]{16,}:[A-Za-z0-9_-]{43,})?$"


class Settings(BaseSettings):
    """The settings of this process. Environment variables win over `.env`, which wins over the defaults."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_", env_file=".env", extra="ignore", frozen=True)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        description="Redis of the budgets and, without SLUICE_BROKER_URL, of the broker.",
    )
    broker_url: str = Field("", repr=False, description="The message broker, where it is not SLUICE_REDIS_URL.")
    prefix: str = Field(
        "sluice",
        pattern=r"^[a-z0-9_.-]{1,40}$",
        description="Prefix of every Redis key; each installation that shares a Redis needs its own.",
    )
    database_url: str = Field(
        "", repr=False, description="sqlite:///file or postgresql://...; default: sluice.db in the data folder."
    )
    database_pooler: Literal["auto", "none", "transaction"] = Field(
        "auto",
        description="What is in front of Postgres: transaction for a pooler such as PgBouncer in transaction mode; "
        "auto tests for it at each connect.",
    )
    data_dir: Path = Field(Path("data"), description="Folder of the SQLite file and of the data of the embedded Redis.")
    sources: str = Field("sources:SOURCES", pattern=r"^[\w.]+:\w+$", description="module:NAME of the list of sources.")

    worker_processes: int = Field(
        2, ge=1, le=64, description="Worker processes that `worker` starts, and restarts when they die."
    )
    worker_threads: int = Field(8, ge=1, le=256, description="Threads of each worker process.")
    lanes: int = Field(0, ge=0, le=1024, description="Lanes of a run; 0: as its source says.")
    batch_size: int = Field(25, ge=1, le=500, description="Most items a lane claims at once.")
    turn_seconds: float = Field(
        1.0, gt=0, le=60, description="How long a lane works before other runs can use its thread."
    )
    flush_seconds: float = Field(
        0.5, gt=0, le=60, description="Longest time between the end of an item and its commit."
    )
    lease_seconds: float = Field(
        60.0,
        ge=1,
        le=3600,
        description="How long a claim of an item lasts; at least twice the request timeout.",
    )
    backoff_seconds: Annotated[tuple[Wait, ...], NoDecode] = Field(
        (30.0, 60.0, 120.0, 240.0),
        description="Waits before the second, third, ... attempt, comma-separated; one attempt more than waits.",
    )
    request_timeout_seconds: float = Field(30.0, gt=0, le=600, description="Total time that a request can take.")
    linger_seconds: float = Field(
        10.0, ge=0, le=600, description="How long after its timeout the API can still count a request."
    )
    max_wait_seconds: float = Field(
        2.0,
        ge=0,
        le=30,
        description="Longest wait for a permit that a thread sleeps; for a longer one the lane gives its items back.",
    )
    longest_pause_seconds: float = Field(
        3600.0,
        ge=1,
        le=31 * 86_400,
        description="Longest pause where the API does not say how long; a wait that it asks for: up to 25 hours.",
    )
    max_body_bytes: int = Field(20_000_000, ge=1024, description="Largest response body that is read.")

    drain_seconds: float = Field(
        10.0, gt=0, le=600, description="Longest time for a worker to stop; at most 4 under honcho."
    )
    tick_seconds: float = Field(5.0, gt=0, le=60, description="Period of the scheduler's loop and of the reaper.")
    lane_lease_seconds: float = Field(
        15.0,
        gt=0,
        le=600,
        description="The reaper re-sends a lane's message after that long without a sign of the lane.",
    )
    finalize_seconds: float = Field(
        10.0, gt=0, le=600, description="How often the reaper checks whether a run is finished."
    )
    keep_items_days: float = Field(
        30.0, ge=0, le=36_500, description="Items are removed this many days after the end of their run; 0 keeps them."
    )
    keep_runs_days: float = Field(
        365.0, ge=0, le=36_500, description="A run is removed this many days after its end; 0 keeps it."
    )

    mock_port: int = Field(8001, ge=1, le=65535, description="Port of the mock API.")
    monitor_host: str = Field("127.0.0.1", description="Address the page listens on.")
    monitor_port: int = Field(8501, ge=1, le=65535, description="Port of the page.")
    monitor_login: Literal["password", "oidc"] = Field(
        "password",
        description="How people log in to the page: with a password, where one is set, or with OpenID Connect (oidc).",
    )
    monitor_password: str = Field(
        "",
        pattern=_HASH,
        repr=False,
        description="Hash of the operators' password; `python -m workers password` prints the line.",
    )
    monitor_viewer_password: str = Field(
        "", pattern=_HASH, repr=False, description="Hash of the viewers' password: they can look, and change nothing."
    )
    monitor_operators: Names = Field((), description="With oidc: e-mail addresses, or @domain, of operators.")
    monitor_viewers: Names = Field((), description="With oidc: e-mail addresses, or @domain, of viewers.")
    monitor_allowed_hosts: Names = Field(
        (), description="Host names that the page accepts besides its address and localhost; comma-separated."
    )
    monitor_trusted_proxies: Names = Field(
        (), description="Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted: addresses or networks."
    )
    monitor_session_hours: float = Field(12.0, gt=0, le=720, description="How long a login to the page lasts.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="text: lines for people; json: one JSON object per line."
    )

    honcho_process_name: str = Field(
        "", validation_alias="HONCHO_PROCESS_NAME", description="Set by honcho. A worker then has 4 s at most to stop."
    )

    @field_validator("backoff_seconds", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator(
        "monitor_operators", "monitor_viewers", "monitor_allowed_hosts", "monitor_trusted_proxies", mode="before"
    )
    @classmethod
    def _split_names(cls, value: object) -> object:
        return (
            tuple(name.strip().lower() for name in value.split(",") if name.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("monitor_operators", "monitor_viewers")
    @classmethod
    def _check_addresses(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if all(name.count("@") == 1 and not name.endswith("@") for name in names):
            return names
        raise ValueError("write e-mail addresses, or @domain for everyone in a domain")

    @field_validator("monitor_trusted_proxies")
    @classmethod
    def _check_networks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            ip_network(name)
        return names

    @property
    def database(self) -> str:
        """The database's URL, or its default."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'sluice.db'}"

    @property
    def broker(self) -> str:
        """The broker's URL, or its default."""
        return self.broker_url or self.redis_url

    @property
    def drain(self) -> float:
        """Seconds that a worker has to stop: fewer under honcho, which kills it after 5 s."""
        return min(self.drain_seconds, HONCHO_DRAIN_SECONDS) if self.honcho_process_name else self.drain_seconds

    @property
    def max_attempts(self) -> int:
        """The most attempts of an item or a list page."""
        return len(self.backoff_seconds) + 1


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return this process's settings, read once.

    Raises:
      ConfigurationError: A variable has an invalid value; the message names the variable.
    """
    try:
        return Settings()
    except UnicodeDecodeError:
        raise ConfigurationError(".env cannot be read: save it in UTF-8") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        variable = name if name.isupper() else f"SLUICE_{name.upper()}"
        problem = first["msg"]
        if name == "sources":
            problem = "write module:LIST, like sources:SOURCES"
        if name in ("monitor_password", "monitor_viewer_password"):
            problem = "it is not a hash; `python -m workers password` prints the whole line"
        raise ConfigurationError(
            f"{variable} cannot be used: {problem} (docs/settings.md lists every variable)"
        ) from None


def environment(**more: str) -> dict[str, str]:
    """Return the environment for a child process: this process's, and more.

    Parameters:
      more(str): Additional variables.
    """
    return os.environ | more
