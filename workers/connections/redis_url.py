"""Where a Redis URL points, and whether a Redis answers there."""

import ipaddress
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry

from workers import clock
from workers.errors import ConfigurationError

_REMIND_SECONDS = 10.0


def answers(url: str, timeout: float = 1.0) -> str | None:
    """Ask the Redis at `url` for its name.

    Parameters:
      url(str): redis://, rediss:// or unix://.
      timeout(float): Seconds to wait for the connection, and for each reply.

    Returns:
      str | None: Such as "valkey 9.1.2"; None where nothing answers, or what answers is still loading its data.

    Raises:
      ConfigurationError: The password is refused, or what answers is not a Redis.
    """
    with suppress(redis.exceptions.BusyLoadingError):
        return look(url, timeout)
    return None


def wait_for(url: str, *, say: Callable[[str], None]) -> bool:
    """Wait until a Redis answers at `url`, or the process is asked to stop.

    Parameters:
      url(str): The Redis.
      say(Callable[[str], None]): Told why it waits: at once, then every ten seconds. The text holds no password.

    Returns:
      bool: Whether it answers; False when a stop was asked for.

    Raises:
      ConfigurationError: As `answers`.
    """
    address = Address.of(url)
    hint = "`python -m workers redis` starts one" if address.local else "it is not for us to start"
    next_word = clock.monotonic()
    while answers(url) is None:
        if clock.monotonic() >= next_word:
            say(f"waiting for Redis at {address}; {hint}")
            next_word += _REMIND_SECONDS
        if clock.sleep(0.25):
            return False
    return True


def look(url: str, timeout: float) -> str | None:
    """Like `answers`, but raises BusyLoadingError where a Redis is there that cannot answer yet."""
    address = Address.of(url)
    try:
        with closing(connect(url, timeout)) as client:
            client.ping()
            return _name_of(client)
    except redis.exceptions.BusyLoadingError:
        raise
    except redis.AuthenticationError:
        raise ConfigurationError(f"The Redis at {address} refused the password in SLUICE_REDIS_URL") from None
    except redis.InvalidResponse:
        raise taken(address) from None
    except redis.ResponseError as error:
        if str(error).startswith("BUSY"):
            raise redis.exceptions.BusyLoadingError(str(error)) from None
        if str(error).startswith(("MISCONF", "MASTERDOWN")):  # it is there, and ill: every door will say so
            return "redis"
        why = address.redact(str(error))
        raise ConfigurationError(f"The Redis at {address} refused what SLUICE_REDIS_URL asks for: {why}") from None
    except (redis.ConnectionError, redis.TimeoutError):
        return None


def connect(url: str, timeout: float) -> "redis.Redis":
    once = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=once)


def _name_of(client: "redis.Redis") -> str:
    try:
        info = client.info("server")
    except redis.ResponseError:  # this user may not ask, which is no reason not to use it
        return "redis"
    assert isinstance(info, dict)
    kind = "valkey" if "valkey_version" in info else "redis"
    return f"{kind} {info.get(f'{kind}_version', '')}".strip()


@dataclass(frozen=True)
class Address:
    """What a Redis URL says. As text it holds no password."""

    host: str
    port: int
    path: str
    db: int
    username: str
    password: str = field(repr=False)
    tls: bool

    @classmethod
    def of(cls, url: str) -> "Address":
        try:
            parts = parse_url(url)  # type: ignore[no-untyped-call]
        except ValueError:  # its text may hold a piece of the password
            raise ConfigurationError(
                "SLUICE_REDIS_URL cannot be read: write redis://:password@host:port/0, rediss://... or unix:///path,"
                " with the special characters of the password as %XX"
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
        """Whether a server of ours can stand here: on this machine and without TLS."""
        if self.path or self.tls:
            return bool(self.path)
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def listens(self) -> bool:
        """Whether anything at all accepts connections here."""
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
        return text.replace(self.password, "***") if self.password else text

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"


def taken(address: Address) -> ConfigurationError:
    other = "unix:///tmp/sluice.sock" if address.path else "redis://127.0.0.1:6380/0"
    return ConfigurationError(
        f"{address} is taken by something that does not answer as a Redis: stop it, or set SLUICE_REDIS_URL={other}"
    )
