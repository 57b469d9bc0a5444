"""Every setting, once: a SLUICE_* environment variable (or a line of .env), its type, its default, its meaning.

No other module reads the environment. docs/settings.md has the same table, and a test compares the two.
"""

import os
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from workers.errors import ConfigurationError

#: honcho kills what is left five seconds after the first process ends.
HONCHO_DRAIN_SECONDS = 4.0

#: A wait of at most a day, in seconds.
Wait = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]

#: Words between commas, in small letters.
Names = Annotated[tuple[str, ...], NoDecode]

#: What `python -m workers password` prints, or nothing. No character of it means anything to a shell or a .env file.
_HASH = r"^(scrypt:\d{1,2}:\d{1,2}:\d{1,2}:[A-Za-z0-9_-]{16,}:[A-Za-z0-9_-]{43,})?$"


class Settings(BaseSettings):
    """The settings of this process. Environment variables win over `.env`, which wins over the defaults."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_", env_file=".env", extra="ignore", frozen=True)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="Redis of the budgets and, unless told, the broker."
    )
    broker_url: str = Field("", repr=False, description="The message broker, where it is not the same Redis.")
    prefix: str = Field(
        "sluice",
        pattern=r"^[a-z0-9_.-]{1,40}$",
        description="The prefix of every Redis key; one per installation that shares a Redis.",
    )
    database_url: str = Field(
        "", repr=False, description="sqlite:///file or postgresql://...; default: sluice.db in the data folder."
    )
    database_pooler: Literal["auto", "none", "transaction"] = Field(
        "auto",
        description="What is in front of Postgres: transaction for a pooler as PgBouncer in transaction mode; "
        "auto finds out at each connect.",
    )
    data_dir: Path = Field(Path("data"), description="Where the SQLite file and the embedded Redis keep their data.")
    sources: str = Field("sources:SOURCES", pattern=r"^[\w.]+:\w+$", description="module:NAME of the list of sources.")

    worker_processes: int = Field(2, ge=1, le=64, description="Worker processes that `worker` keeps alive.")
    worker_threads: int = Field(8, ge=1, le=256, description="Threads of each worker process.")
    lanes: int = Field(0, ge=0, le=1024, description="Lanes of a run; 0: what its source says.")
    batch_size: int = Field(25, ge=1, le=500, description="Most items a lane claims at once.")
    turn_seconds: float = Field(
        1.0, gt=0, le=60, description="How long a lane works before it lets other runs have its thread."
    )
    flush_seconds: float = Field(0.5, gt=0, le=60, description="How long finished items may wait for their commit.")
    lease_seconds: float = Field(
        60.0,
        ge=1,
        le=3600,
        description="How long a claimed item is left to its claimer; at least twice the request timeout.",
    )
    backoff_seconds: Annotated[tuple[Wait, ...], NoDecode] = Field(
        (30.0, 60.0, 120.0, 240.0),
        description="Waits before the second, third, ... attempt; comma-separated. One more attempt than waits.",
    )
    request_timeout_seconds: float = Field(30.0, gt=0, le=600, description="Total time a request may take.")
    linger_seconds: float = Field(
        10.0, ge=0, le=600, description="How long after its timeout the API may still count a request."
    )
    max_wait_seconds: float = Field(
        2.0, ge=0, le=30, description="Longest wait for a permit that is slept in the thread."
    )
    longest_pause_seconds: float = Field(
        3600.0,
        ge=1,
        le=31 * 86_400,
        description="Longest pause where the API does not say how long; one it asks for is waited out up to 25 hours.",
    )
    max_body_bytes: int = Field(20_000_000, ge=1024, description="Largest response body that is read.")

    drain_seconds: float = Field(10.0, gt=0, le=600, description="Time a worker has to stop; at most 4 under honcho.")
    tick_seconds: float = Field(5.0, gt=0, le=60, description="Period of the scheduler's loop and of the reaper.")
    lane_lease_seconds: float = Field(
        15.0, gt=0, le=600, description="Silence after which the reaper sends a lane's message again."
    )
    finalize_seconds: float = Field(
        10.0, gt=0, le=600, description="How often the reaper looks whether a run is finished."
    )
    keep_items_days: float = Field(
        30.0, ge=0, le=36_500, description="Days after a run's end after which its items are removed; 0 keeps them."
    )
    keep_runs_days: float = Field(
        365.0, ge=0, le=36_500, description="Days after a run's end after which its row is removed, too; 0 keeps it."
    )

    mock_port: int = Field(8001, ge=1, le=65535, description="Port of the mock API.")
    monitor_host: str = Field("127.0.0.1", description="Address the page listens on.")
    monitor_port: int = Field(8501, ge=1, le=65535, description="Port of the page.")
    monitor_login: Literal["password", "oidc"] = Field(
        "password", description="How people log in to the page: by a password, where one is set, or oidc."
    )
    monitor_password: str = Field(
        "", pattern=_HASH, repr=False, description="Hash of the operators' password; `password` makes the line."
    )
    monitor_viewer_password: str = Field(
        "", pattern=_HASH, repr=False, description="Hash of the password of those who may only look."
    )
    monitor_operators: Names = Field((), description="With oidc: e-mail addresses, or @domain, that may act.")
    monitor_viewers: Names = Field((), description="With oidc: e-mail addresses, or @domain, that may look.")
    monitor_allowed_hosts: Names = Field(
        (), description="Names the page answers to, beside its address and localhost; comma-separated."
    )
    monitor_trusted_proxies: Names = Field(
        (), description="Proxies whose X-Forwarded-For and -Proto are believed: addresses or networks."
    )
    monitor_session_hours: float = Field(12.0, gt=0, le=720, description="How long a login to the page lasts.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="How much is logged.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people, or one JSON object a line.")

    honcho_process_name: str = Field(
        "", validation_alias="HONCHO_PROCESS_NAME", description="Set by honcho: the drain is then 4 s at most."
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
        raise ValueError("write e-mail addresses, or @domain for all of a domain")

    @field_validator("monitor_trusted_proxies")
    @classmethod
    def _check_networks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            ip_network(name)
        return names

    @property
    def database(self) -> str:
        """The database's URL, the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'sluice.db'}"

    @property
    def broker(self) -> str:
        """The broker's URL, the default filled in."""
        return self.broker_url or self.redis_url

    @property
    def drain(self) -> float:
        """Seconds a stopping worker has, honcho's patience considered."""
        return min(self.drain_seconds, HONCHO_DRAIN_SECONDS) if self.honcho_process_name else self.drain_seconds

    @property
    def max_attempts(self) -> int:
        """How often an item, or a list page, is tried."""
        return len(self.backoff_seconds) + 1


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return this process's settings, read once.

    Raises:
      ConfigurationError: A variable does not have a value that can be used; the message names it.
    """
    try:
        return Settings()
    except UnicodeDecodeError:
        raise ConfigurationError(".env cannot be read: save it as UTF-8") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        variable = name if name.isupper() else f"SLUICE_{name.upper()}"
        said = first["msg"]
        if name == "sources":
            said = "write module:LIST, like sources:SOURCES"
        if name in ("monitor_password", "monitor_viewer_password"):
            said = "it holds no hash; `python -m workers password` makes the whole line"
        raise ConfigurationError(f"{variable} cannot be used: {said} (docs/settings.md lists every variable)") from None


def environment(**more: str) -> dict[str, str]:
    """Return the environment for a process that we start.

    Parameters:
      more(str): What it finds there beside what we found.
    """
    return os.environ | more
