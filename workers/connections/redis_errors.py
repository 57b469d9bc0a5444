"""Explains an error of Redis: what is wrong, and the repair. The page, the command line and the log use these texts."""

import re

import redis
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterError, RedisClusterException, TryAgainError

from workers.connections.trouble import Cause, Trouble
from workers.text import redaction

_ERROR_LENGTH = 200


AWAY = "Redis does not answer"
UNREADABLE = Trouble(
    "SLUICE_REDIS_URL cannot be read", "write it as redis://:password@host:port/0", cause=Cause.REDIS_REFUSES
)
_CLUSTER = ("Redis runs as a cluster, and Sluice needs a single server", "let SLUICE_REDIS_URL name a single server")
_CLUSTER_ERRORS = (AskError, ClusterCrossSlotError, ClusterError, RedisClusterException, TryAgainError)
#: What is wrong, and the repair, by the first word of a Redis error.
_BY_FIRST_WORD = {
    "OOM": (
        "Redis is out of memory",
        "raise its maxmemory, or delete other data in it; its maxmemory-policy must be noeviction",
    ),
    "READONLY": ("Redis is a replica, and read only", "let SLUICE_REDIS_URL name its master"),
    "MASTERDOWN": ("Redis is a replica without its master", "let SLUICE_REDIS_URL name a master"),
    "LOADING": ("Redis is loading its data", "wait: it answers when the data is loaded"),
    "MISCONF": ("Redis takes no writes, because it cannot write to its disk", "free disk space where Redis runs"),
    "NOREPLICAS": ("Redis takes no writes, because it has too few replicas", "start its replicas"),
    "BUSY": ("Redis is busy with another program's script", "wait for it, or end it with `redis-cli SCRIPT KILL`"),
    "NOAUTH": ("Redis asks for a password", "put it into SLUICE_REDIS_URL"),
    "WRONGPASS": ("Redis refuses the password", "correct it in SLUICE_REDIS_URL"),
    **dict.fromkeys(("CROSSSLOT", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"), _CLUSTER),
    "NOPERM": ("Redis forbids its user a command that Sluice needs", "allow it to the user in SLUICE_REDIS_URL"),
}
#: The same, by the text of an error that begins with no known word.
_BY_TEXT = (
    (re.compile(r"cluster (mode|node)|same slot|hash slot", re.IGNORECASE), _CLUSTER),
    (
        re.compile(r"max number of clients", re.IGNORECASE),
        ("Redis has no connection left", "raise its maxclients, or run fewer processes"),
    ),
    (
        re.compile(r"DB index is out of range|invalid DB index", re.IGNORECASE),
        ("Redis has no database of that number", "correct the number at the end of SLUICE_REDIS_URL"),
    ),
)


def cluster() -> Trouble:
    """Return the trouble with a Redis that runs as a cluster."""
    return Trouble(*_CLUSTER, cause=Cause.REDIS_REFUSES)


def trouble(error: BaseException) -> Trouble:
    """Return what an error of Redis, or of the connection to it, means.

    Parameters:
      error(BaseException): A `redis.RedisError`.
    """
    text = redaction.redact(str(error)).strip()[:_ERROR_LENGTH]
    known = _BY_FIRST_WORD.get(_first_word(error)) or _by_class_or_text(error)
    if known:
        return Trouble(*known, said=text or type(error).__name__, cause=Cause.REDIS_REFUSES)
    if isinstance(error, redis.ResponseError):
        return Trouble(f"Redis refuses a command ({text})", "see its log", said=text, cause=Cause.REDIS_REFUSES)
    if isinstance(error, redis.InvalidResponse):
        said = type(error).__name__
        return Trouble("the program at SLUICE_REDIS_URL is not a Redis", "correct it", said, cause=Cause.REDIS_REFUSES)
    return Trouble(AWAY, "start it, or correct SLUICE_REDIS_URL", type(error).__name__, cause=Cause.REDIS_AWAY)


def _by_class_or_text(error: BaseException) -> tuple[str, str] | None:
    """Return what an error means by its class, or by its text."""
    if isinstance(error, _CLUSTER_ERRORS):
        return _CLUSTER
    return next((known for pattern, known in _BY_TEXT if pattern.search(str(error))), None)


def _first_word(error: BaseException) -> str:
    """Return the first word of an error. redis-py removes the known words from the text.

    Before Redis 7, a script's error is at the end: `... @user_script: 616: -OOM command not allowed ...`.
    """
    place, behind, refusal = str(error).partition(": -")
    if behind and "@user_script" in place:
        return refusal.partition(" ")[0]
    code: str | None = getattr(error, "status_code", None)
    return code or str(error).partition(" ")[0]
