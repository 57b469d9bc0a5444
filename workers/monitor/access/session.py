"""Sessions of logged-in people: role, name and expiry, in a signed token that the browser keeps in a cookie."""

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
    """What a person can do."""

    VIEWER = "viewer"  # look
    OPERATOR = "operator"  # act, too


@dataclass(frozen=True)
class Session:
    """A person who is logged in.

    Parameters:
      id(str): A random number.
      name(str): The name in the timeline.
      until(datetime): When it expires.
    """

    id: str
    role: Role
    name: str
    until: datetime


class Sessions:
    """Creates and reads the tokens of sessions.

    A token is signed with the key file and the hash of its password: a change of either ends it, and no token can be
    changed to another role.

    Parameters:
      folder(Path): The folder of the key file, so that sessions survive a restart.
      hashes(Mapping): The hash of the password of each role that has one.
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
        """Return the session of a token; None where its signature is not valid, or the password has changed.

        *Warning:* the session can have ended: ask `EndedSessions`.
        """
        for role, signer in self._signers.items():
            with suppress(BadData, ValueError):
                number, name, until = signer.loads(token)
                return Session(str(number), role, str(name), datetime.fromtimestamp(until, UTC))
        return None


class EndedSessions:
    """The sessions that were ended before they expired, in a file, so that they stay ended after a restart.

    Parameters:
      folder(Path): The folder of the file.
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
            log.warning("a logout could not be stored: after a restart, that session is valid again (%s)", error)

    def has(self, session: Session) -> bool:
        """Return whether a session was ended or has expired."""
        return session.id in self._ids or session.until <= clock.now()


def _lines(path: Path) -> list[tuple[str, int]]:
    """Return the ended sessions with their expiry, without those that have expired."""
    try:
        words = [line.split() for line in path.read_text(errors="replace").splitlines()]
    except FileNotFoundError:
        return []
    known = [(word[0], int(word[1])) for word in words if len(word) == 2 and word[1].isdecimal()]
    return [(number, until) for number, until in known if until > clock.now().timestamp()]


def _key(folder: Path) -> bytes:
    """Return the key that signs tokens; it is created at the first call.

    Raises:
      ConfigurationError: The file holds no key, or others can read it.
    """
    path = folder / _KEY
    if not path.exists():
        _write(path, secrets.token_hex(_KEY_BYTES), keep=True)
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} can be read by others, who could forge sessions with it: chmod 600 {path}")
    key = path.read_bytes()
    if len(key) < 2 * _KEY_BYTES:
        raise ConfigurationError(f"{path} holds no key: remove it to get a new one; then everyone has to log in again")
    return key


def _write(path: Path, text: str, *, keep: bool = False) -> None:
    """Write a file that only this user can read, atomically.

    Parameters:
      keep(bool): Whether an existing file stays.
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
