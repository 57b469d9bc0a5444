"""Tests whether a Redis answers at a URL, returns its name and version, and waits until it answers."""

from collections.abc import Callable
from contextlib import closing, suppress

import redis

from workers import clock
from workers.connections.redis_client import probe_client
from workers.connections.redis_url import Address, in_use
from workers.errors import ConfigurationError

_REMIND_SECONDS = 10.0


def server_name(url: str, timeout_seconds: float = 1.0) -> str | None:
    """Return the name and version of the Redis at `url`.

    Parameters:
      url(str): redis://, rediss:// or unix://.
      timeout_seconds(float): To wait for the connection, and for each reply.

    Returns:
      str | None: Such as "valkey 9.1.2"; None where no Redis answers, or it is still loading its data.

    Raises:
      ConfigurationError: The password is refused, or the program that answers is not a Redis.
    """
    with suppress(redis.exceptions.BusyLoadingError):
        return probe(url, timeout_seconds)
    return None


def wait_for_redis(url: str, *, say: Callable[[str], None]) -> bool:
    """Wait until a Redis answers at `url`, or the process is asked to stop.

    Parameters:
      url(str): The Redis.
      say(Callable[[str], None]): Called with the reason of the wait, at once and then every ten seconds. The text
        contains no password.

    Returns:
      bool: Whether it answers; False when the process was asked to stop.

    Raises:
      ConfigurationError: As `server_name`.
    """
    address = Address.of(url)
    hint = "`python -m workers redis` starts one" if address.local else "start it on its host"
    next_reminder = clock.monotonic()
    while server_name(url) is None:
        if clock.monotonic() >= next_reminder:
            say(f"waiting for Redis at {address}; {hint}")
            next_reminder += _REMIND_SECONDS
        if clock.sleep(0.25):
            return False
    return True


def probe(url: str, timeout_seconds: float) -> str | None:
    """Return the name as `server_name` does; raise BusyLoadingError where a Redis is loading its data."""
    address = Address.of(url)
    try:
        with closing(probe_client(url, timeout_seconds)) as client:
            client.ping()
            return _name_of(client)
    except redis.exceptions.BusyLoadingError:
        raise
    except redis.AuthenticationError:
        raise ConfigurationError(f"The Redis at {address} refused the password in SLUICE_REDIS_URL") from None
    except redis.InvalidResponse:
        raise in_use(address) from None
    except redis.ResponseError as error:
        if str(error).startswith("BUSY"):
            raise redis.exceptions.BusyLoadingError(str(error)) from None
        if str(error).startswith(("MISCONF", "MASTERDOWN")):  # it answers, and every use of it reports the trouble
            return "redis"
        why = address.redact(str(error))
        raise ConfigurationError(f"The Redis at {address} refused what SLUICE_REDIS_URL asks for: {why}") from None
    except (redis.ConnectionError, redis.TimeoutError):
        return None


def _name_of(client: "redis.Redis") -> str:
    try:
        info = client.info("server")
    except redis.ResponseError:  # this user must not read INFO; it can use Redis all the same
        return "redis"
    assert isinstance(info, dict)
    kind = "valkey" if "valkey_version" in info else "redis"
    return f"{kind} {info.get(f'{kind}_version', '')}".strip()
