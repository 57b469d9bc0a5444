"""A session: somebody who was let in, as what, and until when. Its token is signed, and lives in a cookie."""

import hashlib
import logging
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from itsdangerous import BadData, URLSafeSerializer

from workers import clock
from workers.errors import ConfigurationError

log = logging.getLogger(__name__)

_KEY, _ENDED = "monitor.key", "monitor.ended"
_KEY_BYTES = 32


class Role(StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"  # look
    OPERATOR = "operator"  # act, too


@dataclass(frozen=True)
class Session:
    """Somebody who was let in.

    Parameters:
      id(str): Tells it from others, and tells nothing else.
      name(str): What the timeline calls them.
      until(datetime): When it ends by itself.
    """

    id: str
    role: Role
    name: str
    until: datetime


class Sessions:
    """Makes the tokens of sessions, and reads them.

    A token is signed with our key and its password's hash: it ends with either, and nobody makes himself an operator.

    Parameters:
      folder(Path): Where the key is kept, so that a restart ends no session.
      hashes(Mapping): The password's hash of each role that has one.
    """

    def __init__(self, folder: Path, hashes: Mapping[Role, str]) -> None:
        key = _key(folder)
        self._signers = {
            role: URLSafeSerializer(key, salt=f"{role} {kept}", signer_kwargs={"digest_method": hashlib.sha256})
            for role, kept in hashes.items()
        }

    def begin(self, role: Role, name: str, hours: float) -> tuple[Session, str]:
        """Return a new session, and its token."""
        until = (clock.now() + timedelta(hours=hours)).replace(microsecond=0)
        session = Session(secrets.token_urlsafe(12), role, name, until)
        return session, str(self._signers[role].dumps([session.id, name, int(until.timestamp())]))

    def read(self, token: str) -> Session | None:
        """Return the session of a token; None where we did not make it, or its password has changed.

        *Warning:* It may be over: `Ended` knows.
        """
        for role, signer in self._signers.items():
            with suppress(BadData, ValueError):
                number, name, until = signer.loads(token)
                return Session(str(number), role, str(name), datetime.fromtimestamp(until, UTC))
        return None


class Ended:
    """The sessions that were ended before their time. Kept in a file, so that a restart brings none back to life.

    Parameters:
      folder(Path): Where the file is.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _ENDED
        self._ids = dict(_lines(self._path))
        if self._path.exists():
            _write(self._path, "".join(f"{number} {until}\n" for number, until in self._ids.items()))

    def add(self, session: Session) -> None:
        """End a session now."""
        until = int(session.until.timestamp())
        self._ids[session.id] = until
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:  # noqa: PTH123
                file.write(f"{session.id} {until}\n")
        except OSError as error:
            log.warning("that a session has ended could not be kept: after a restart it holds again (%s)", error)

    def has(self, session: Session) -> bool:
        """Return whether a session is over: ended, or out of time."""
        return session.id in self._ids or session.until <= clock.now()


def _lines(path: Path) -> list[tuple[str, int]]:
    """Return which sessions were ended until when, without those that are out of time."""
    try:
        words = [line.split() for line in path.read_text(errors="replace").splitlines()]
    except FileNotFoundError:
        return []
    known = [(word[0], int(word[1])) for word in words if len(word) == 2 and word[1].isdecimal()]
    return [(number, until) for number, until in known if until > clock.now().timestamp()]


def _key(folder: Path) -> bytes:
    """Return the key that tokens are signed with; the first one to ask makes it.

    Raises:
      ConfigurationError: There is a file, and no key is in it.
    """
    path = folder / _KEY
    if not path.exists():
        _write(path, secrets.token_hex(_KEY_BYTES), keep=True)
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} can be read by others, who could make sessions with it: chmod 600 {path}")
    key = path.read_bytes()
    if len(key) < 2 * _KEY_BYTES:
        raise ConfigurationError(f"{path} holds no key: remove it, and a new one is made; everybody logs in again")
    return key


def _write(path: Path, text: str, *, keep: bool = False) -> None:
    """Write a file that only we may read, whole or not at all.

    Parameters:
      keep(bool): Whether one that is already there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)  # 0600
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror}): make its folder writable, or set SLUICE_DATA_DIR"
        ) from None
    made = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        if keep:
            with suppress(FileExistsError):
                path.hardlink_to(made)
        else:
            made.replace(path)
    finally:
        made.unlink(missing_ok=True)
