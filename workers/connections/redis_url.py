"""Parses a Redis URL into host, port, path and database, and tests whether anything listens there. Hides passwords."""

import socket
from dataclasses import dataclass, field
from pathlib import Path

from redis.connection import SSLConnection, parse_url

from workers.connections.loopback import is_loopback
from workers.errors import ConfigurationError


def is_redis(url: str) -> bool:
    """Return whether a URL names a Redis, by its scheme."""
    return url.partition(":")[0] in ("redis", "rediss", "unix")


@dataclass(frozen=True)
class Address:
    """The parts of a Redis URL. Its text contains no password."""

    host: str
    port: int
    path: str
    db: int
    username: str
    password: str = field(repr=False)
    tls: bool

    @classmethod
    def of(cls, url: str) -> "Address":
        """Return the address that a URL names.

        Raises:
          ConfigurationError: The URL cannot be read.
        """
        try:
            parts = parse_url(url)  # type: ignore[no-untyped-call]
        except ValueError:  # its text can contain a part of the password
            raise ConfigurationError(
                "SLUICE_REDIS_URL cannot be read",
                repair="write redis://:password@host:port/0, rediss://... or unix:///path,"
                " with the special characters of the password as %XX",
            ) from None
        return cls(
            host=parts.get("host", "localhost"),
            port=int(parts.get("port", 6379)),
            path=str(Path(parts["path"]).absolute()) if "path" in parts else "",
            db=int(parts.get("db", 0)),
            username=parts.get("username", ""),
            password=parts.get("password", ""),
            tls=parts.get("connection_class") is SSLConnection,
        )

    @property
    def local(self) -> bool:
        """Whether `python -m workers redis` can serve this address: on this machine and without TLS."""
        if self.path or self.tls:
            return bool(self.path)
        return is_loopback(self.host)

    def listens(self) -> bool:
        """Return whether any program accepts connections here."""
        target = self.path or (self.host, self.port)
        try:
            if isinstance(target, tuple):
                socket.create_connection(target, timeout=1.0).close()
            else:
                with socket.socket(socket.AF_UNIX) as unix:
                    unix.settimeout(1.0)
                    unix.connect(target)
        except (TimeoutError, PermissionError, BlockingIOError):
            return True
        except OSError:
            return False
        return True

    def redact(self, text: str) -> str:
        """Return text without this address's password."""
        return text.replace(self.password, "***") if self.password else text

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"


def in_use(address: Address) -> ConfigurationError:
    """Return the error that another program than Redis uses an address."""
    other = "unix:///tmp/sluice.sock" if address.path else "redis://127.0.0.1:6380/0"
    return ConfigurationError(
        f"{address} is used by a program that does not answer as a Redis",
        repair=f"stop it, or set SLUICE_REDIS_URL={other}",
    )
