"""Machine checks: checks Python, packages, settings, files, ports and open-file limits of this machine."""

import http.client
import re
import resource
import shutil
import stat
import sys
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path

from workers.doctor.finding import Finding, error, ok, refused, warning
from workers.errors import ConfigurationError
from workers.processes import page_access, preflight
from workers.settings import Settings, get_settings
from workers.text.secret_names import is_secret

_PACKAGE = "sluice-importer"
_OLDEST_PYTHON = (3, 11)
#: The files that a worker thread keeps open (database, two of Redis, one of the API), and that its process does.
_FILES_A_THREAD, _FILES_A_PROCESS = 6, 64
_LITTLE_DISK_BYTES, _NO_DISK_BYTES = 1_000_000_000, 100_000_000
_URL_WITH_PASSWORD = re.compile(r"://[^\s/]*:[^\s/]+@")
_ASSIGNMENT = re.compile(r"^[ \t#]*(?:export[ \t]+)?(\w+)[ \t]*=[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?\s*([^;]*)")
_BOUND = re.compile(r"(==|>=|<)\s*([\d.]+)")
_LINE = re.compile(r"^[ \t]*(export[ \t]+)?(SLUICE_\w+)[ \t]*=", re.MULTILINE | re.IGNORECASE)
_ANSWER_SECONDS = 2.0


# --- Python and packages


def python(version: tuple[int, ...] = sys.version_info[:3], stage: str = sys.version_info[3]) -> Iterator[Finding]:
    """Check the version of Python.

    Parameters:
      stage(str): "final", or a pre-release stage.
    """
    said = ".".join(map(str, version))
    if version < _OLDEST_PYTHON:
        yield error(
            "python",
            f"Python {said} is too old for Sluice",
            "install Python 3.11 or newer, and make a new venv",
        )
    elif stage != "final":
        yield warning("python", f"Python {said} is not released yet ({stage})", "use a released version")
    else:
        yield ok("python", f"Python {said}")


def packages(wanted: list[str] | None = None) -> Iterator[Finding]:
    """Check that the installed packages are of the versions that Sluice needs.

    Parameters:
      wanted(list[str] | None): Requirements, as pyproject.toml has them; None: Sluice's own.
    """
    wanted = _own_requirements() if wanted is None else wanted
    wrong = [said for requirement in wanted if (said := _unmet(requirement))]
    for said in wrong:
        yield error("python", said, "install what Sluice needs again: `pip install -r requirements.txt`")
    if not wrong:
        yield ok("python", f"{len(wanted)} packages, each of a version that fits")


def _own_requirements() -> list[str]:
    """Return what Sluice needs: as it was installed, or as its folder says where it was not."""
    try:
        return metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
        return list(project["dependencies"])


def _unmet(requirement: str) -> str:
    """Say how a requirement is not met; empty where it is, or is for another system."""
    read = _REQUIREMENT.match(requirement)
    if read is None:
        return ""
    name, bounds = read[1], read[2].strip()
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "" if ";" in requirement else f"the package {name} is not installed"
    fits = all(_fits(version, sign, bound) for sign, bound in _BOUND.findall(bounds))
    return "" if fits else f"{name} {version} is installed, and Sluice is made for {bounds}"


def _fits(version: str, sign: str, bound: str) -> bool:
    has, limit = _numbers(version), _numbers(bound)
    if sign == "==":
        return has[: len(limit)] == limit
    return has >= limit if sign == ">=" else has < limit


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]


# --- settings and files


def settings() -> Iterator[Finding]:
    """Check that the settings can be read and fit together, and the names in `.env`."""
    found = get_settings()
    yield ok("settings", f"readable; {_origin()}")
    least = 2 * found.request_timeout_seconds
    if found.lease_seconds < least:
        yield warning(
            "settings",
            f"SLUICE_LEASE_SECONDS is {found.lease_seconds:g}, and a request may take {least / 2:g} s: "
            "an item may be fetched twice",
            f"set SLUICE_LEASE_SECONDS={least:g}",
        )
    yield from _env_file(Path(".env"))


def _origin() -> str:
    env = Path(".env")
    return f"{env.absolute()} is read" if env.is_file() else "there is no .env here"


def _env_file(path: Path) -> Iterator[Finding]:
    if not path.is_file():
        return
    text = path.read_text("utf-8")
    for export, name in _LINE.findall(text):
        yield from _line_of_env(export, name.upper())
    others_may_read = path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    if others_may_read and _holds_a_secret(text):
        yield warning("files", f"{path} holds a password or a key, and other users can read it", f"chmod 600 {path}")


def _holds_a_secret(text: str) -> bool:
    """Whether a file of variables holds a URL with a password, or a variable whose name says that it is a secret."""
    return bool(_URL_WITH_PASSWORD.search(text)) or any(
        is_secret(name) or (is_secret(name, header=True) and not value.isdigit())  # SLUICE_MONITOR_SESSION_HOURS=8
        for name, value in _ASSIGNMENT.findall(text)
    )


def _line_of_env(export: str, name: str) -> Iterator[Finding]:
    known = [f"SLUICE_{field.upper()}" for field in Settings.model_fields]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        meant = f"write {near[0]}" if near else "remove it; docs/settings.md lists every setting"
        yield warning("settings", f"{name} in .env is no setting, and has no effect", meant)
    elif export:
        yield warning("settings", f"{name} has an export before it in .env: honcho ignores it", "remove the export")


def files() -> Iterator[Finding]:
    """Check the data folder, and the space on its disk."""
    folder = get_settings().data_dir
    try:
        if folder.exists():
            preflight.check_folder(folder)
            yield ok("files", f"the data folder {folder.absolute()} can be written")
        else:
            yield ok("files", f"the data folder {folder.absolute()} does not exist yet: it is created when needed")
    except ConfigurationError as why:
        yield refused("files", why, "make it writable")
    yield from _disk(folder.absolute())


def _disk(folder: Path) -> Iterator[Finding]:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    what, fix = f"{free / 1e9:,.1f} GB are free on the disk of {place}", "free some, or set SLUICE_DATA_DIR"
    if free < _NO_DISK_BYTES:
        yield error("files", what, fix)
    elif free < _LITTLE_DISK_BYTES:
        yield warning("files", what, fix)
    else:
        yield ok("files", what)


# --- open files, and ports


def open_files(most: int | None = None) -> Iterator[Finding]:
    """Check that a process may open enough files for the configured threads.

    Parameters:
      most(int | None): The limit; None: this process's.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if most is None else most
    threads = get_settings().worker_threads
    needed = threads * _FILES_A_THREAD + _FILES_A_PROCESS
    if 0 <= most < needed:  # below 0: no limit
        yield warning(
            "machine",
            f"a process may open {most:,} files here, and {threads} threads need about {needed:,}",
            f"`ulimit -n {max(4096, needed)}` in the shell, or LimitNOFILE= in the unit, that starts the worker",
        )
    else:
        yield ok("machine", "a process may open enough files")


def ports() -> Iterator[Finding]:
    """Check that the ports of the page and of the mock API are free, or in use by them."""
    found = get_settings()
    try:
        page_access.check()
        yield from _port(found.monitor_host, found.monitor_port, ("the page", "SLUICE_MONITOR_PORT", "/_stcore/health"))
    except ConfigurationError as why:
        yield refused("ports", why, "docs/access.md explains how people log in to the page")
    yield from _port("127.0.0.1", found.mock_port, ("the mock API", "SLUICE_MOCK_PORT", "/health"))


def _port(host: str, port: int, whose: tuple[str, str, str]) -> Iterator[Finding]:
    what, variable, path = whose
    try:
        preflight.check_port(host, port, what, variable)
        yield ok("ports", f"port {port} is free for {what}")
    except ConfigurationError as why:
        if _answers(host, port, path):
            yield ok("ports", f"{what} answers on port {port}")
        else:
            yield warning("ports", why.what, why.repair)


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
