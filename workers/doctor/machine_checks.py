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

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from workers import extras
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
    """Check the versions of the packages that Sluice needs; those of an extra only where they are installed.

    Parameters:
      wanted(list[str] | None): Requirements (PEP 508); None: Sluice's own.
    """
    requirements = [Requirement(text) for text in (_own_requirements() if wanted is None else wanted)]
    checked = [requirement for requirement in requirements if _is_wanted(requirement)]
    unmet = [what for requirement in checked if (what := _unmet(requirement))]
    for what in unmet:
        yield error("python", what, "install Sluice again; in a clone: `pip install -r requirements.txt`")
    if not unmet:
        yield ok("python", f"{len(checked)} packages, each of a version that fits")


def _own_requirements() -> list[str]:
    """Return the requirements of the installed package, or of pyproject.toml in a clone that was not installed."""
    try:
        return metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
        optional: dict[str, list[str]] = project["optional-dependencies"]
        return project["dependencies"] + [_of_extra(text, extra) for extra in optional for text in optional[extra]]


def _of_extra(text: str, extra: str) -> str:
    """Return a requirement as installed metadata has it: with its extra in its marker."""
    package, _, marker = text.partition(";")
    return f"{package}; ({marker}) and extra == '{extra}'" if marker else f"{package}; extra == '{extra}'"


def _is_wanted(requirement: Requirement) -> bool:
    """Return whether a package is needed on this system: always, or by an extra that brought it."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return True
    of_an_extra = any(marker.evaluate({"extra": extra}) for extra in extras.MODULES)
    return of_an_extra and requirement.name != _PACKAGE and _installed_version(requirement.name) is not None


def _unmet(requirement: Requirement) -> str:
    """Return in which way a requirement is not met; empty where it is met."""
    installed = _installed_version(requirement.name)
    if installed is None:
        return f"the package {requirement.name} is not installed"
    try:
        fits = requirement.specifier.contains(Version(installed), prereleases=True)
    except InvalidVersion:
        return f"{requirement.name} {installed} is installed, which is not a version that can be compared"
    made_for = f"{requirement.name} {installed} is installed, and Sluice is made for {requirement.specifier}"
    return "" if fits else made_for


def _installed_version(name: str) -> str | None:
    """Return the version of an installed package as its metadata has it, empty where that has none."""
    try:
        return metadata.version(name) or ""
    except metadata.PackageNotFoundError:
        return None
    except KeyError:  # a damaged installation: a dist-info folder without a version
        return ""


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
