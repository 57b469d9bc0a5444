"""What can be checked before the processes start, so that a person gets one sentence instead of five logs."""

import socket
import tempfile
from pathlib import Path

from redis.exceptions import BusyLoadingError

from workers.connections import redis_url
from workers.errors import ConfigurationError
from workers.settings import get_settings


def check() -> None:
    """Check the data folder, the ports and what listens where Redis should be.

    Raises:
      ConfigurationError: Something is in the way; the message names the fix.
    """
    settings = get_settings()
    check_folder(settings.data_dir)
    check_port("127.0.0.1", settings.mock_port, "the mock API", "SLUICE_MOCK_PORT")
    check_port(settings.monitor_host, settings.monitor_port, "the page", "SLUICE_MONITOR_PORT")
    check_redis(settings.redis_url)


def check_redis(url: str) -> None:
    """See whether a Redis, or nothing, listens where one should be.

    Raises:
      ConfigurationError: Something else does, or the Redis refuses us.
    """
    address = redis_url.Address.of(url)
    try:
        if redis_url.look(url, timeout=1.0) is None and address.local and address.listens():
            raise redis_url.taken(address)
    except BusyLoadingError:
        pass  # it is a Redis, and will answer


def check_folder(folder: Path) -> None:
    """Make the folder where it is missing, and see whether a file can be written there.

    Raises:
      ConfigurationError: It cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {folder.absolute()} cannot be written ({error.strerror}): "
            f"make it writable, or set SLUICE_DATA_DIR to one that is"
        ) from None


def check_port(host: str, port: int, what: str, variable: str) -> None:
    """See whether a port can be listened on.

    Parameters:
      what(str): What is to listen there.
      variable(str): The setting that names another port.

    Raises:
      ConfigurationError: It is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} for {what} cannot be used ({error.strerror}): "
                f"stop what listens there, or set {variable} to another port"
            ) from None
