"""Preflight: checks folder, ports and Redis before the processes start, so that one message names the repair."""

import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from redis.exceptions import BusyLoadingError

from workers.connections import redis_probe, redis_url
from workers.errors import ConfigurationError
from workers.settings import get_settings


def check() -> None:
    """Check the data folder, the ports, and what listens at the address of Redis.

    Raises:
      ConfigurationError: One of them cannot be used; the message names the repair.
    """
    settings = get_settings()
    check_folder(settings.data_dir)
    check_port("127.0.0.1", settings.mock_port, "the mock API", "SLUICE_MOCK_PORT")
    check_port(settings.monitor_host, settings.monitor_port, "the page", "SLUICE_MONITOR_PORT")
    check_redis(settings.redis_url)


def check_redis(url: str) -> None:
    """Check that a Redis, or nothing, listens at a URL.

    Raises:
      ConfigurationError: Something else does, or the Redis refuses the connection.
    """
    with suppress(BusyLoadingError):  # it is a Redis, and will answer
        find_redis(url, timeout_seconds=1.0)


def find_redis(url: str, timeout_seconds: float) -> str | None:
    """Return the name and version of the Redis at a URL; None where nothing listens there.

    Raises:
      ConfigurationError: Something else listens there, or the Redis refuses the connection.
      BusyLoadingError: It is a Redis that cannot answer yet.
    """
    address = redis_url.Address.of(url)
    name = redis_probe.probe(url, timeout_seconds)
    if name is None and address.local and address.listens():
        raise redis_url.in_use(address)
    return name


def check_folder(folder: Path) -> None:
    """Create the folder if it is missing, and check that files can be written there.

    Raises:
      ConfigurationError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {folder.absolute()} cannot be written ({error.strerror})",
            repair="make it writable, or set SLUICE_DATA_DIR to one that is",
        ) from None


def check_port(host: str, port: int, what: str, variable: str) -> None:
    """Check that a port is free.

    Parameters:
      host(str), port(int): The address.
      what(str): The program that will listen there, for the message.
      variable(str): The setting for another port, for the message.

    Raises:
      ConfigurationError: The port is in use, or cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} for {what} cannot be used ({error.strerror})",
                repair=f"stop the program that listens there, or set {variable} to another port",
            ) from None
