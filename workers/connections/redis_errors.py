"""Redis words: what is the matter where Redis refuses, or does not answer, and the repair. Every door uses these."""

import re
from dataclasses import dataclass

import redis
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterError, RedisClusterException, TryAgainError

from workers.text import redaction

_SAID_LENGTH = 200


@dataclass(frozen=True)
class Trouble:
    """What is the matter with Redis, or with the database.

    Attributes:
      what: A clause: `Redis is out of memory`.
      repair: What a person can do about it.
      said: The error's own words, or its name.
    """

    what: str
    repair: str
    said: str = ""


AWAY = "Redis does not answer"
UNREADABLE = Trouble("SLUICE_REDIS_URL cannot be read", "write it as redis://:password@host:port/0")
_CLUSTER = ("Redis runs as a cluster, and Sluice needs a single server", "let SLUICE_REDIS_URL name a single server")
_OF_A_CLUSTER = (AskError, ClusterCrossSlotError, ClusterError, RedisClusterException, TryAgainError)
#: By the word with which Redis begins its refusal: what is the matter, and the repair.
_REFUSALS = {
    "OOM": (
        "Redis is out of memory",
        "raise its maxmemory, or delete what else is kept in it; its maxmemory-policy must be noeviction",
    ),
    "READONLY": ("Redis is a replica, and read only", "let SLUICE_REDIS_URL name its master"),
    "MASTERDOWN": ("Redis is a replica without its master", "let SLUICE_REDIS_URL name a master"),
    "LOADING": ("Redis is loading its data", "nothing: it answers when it has"),
    "MISCONF": ("Redis takes no writes, because it cannot write to its disk", "free disk space where Redis runs"),
    "NOREPLICAS": ("Redis takes no writes, because it has too few replicas", "start its replicas"),
    "BUSY": ("Redis is busy with somebody's script", "wait for it, or end it with `redis-cli SCRIPT KILL`"),
    "NOAUTH": ("Redis asks for a password", "put it into SLUICE_REDIS_URL"),
    "WRONGPASS": ("Redis refuses the password", "correct it in SLUICE_REDIS_URL"),
    **dict.fromkeys(("CROSSSLOT", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"), _CLUSTER),
    "NOPERM": ("Redis forbids its user what Sluice needs", "allow it to the user that SLUICE_REDIS_URL names"),
}
#: By what stands in a refusal that begins with no word of its own.
_REFUSALS_BY_TEXT = (
    (re.compile(r"cluster (mode|node)|same slot|hash slot", re.IGNORECASE), _CLUSTER),
    (
        re.compile(r"max number of clients", re.IGNORECASE),
        ("Redis has no connection left", "raise its maxclients, or run fewer processes"),
    ),
    (
        re.compile(r"DB index is out of range|invalid DB index", re.IGNORECASE),
        ("Redis has no database of that number", "correct the number that SLUICE_REDIS_URL ends with"),
    ),
)


def cluster() -> Trouble:
    """Return what is the matter with a Redis that runs as a cluster."""
    return Trouble(*_CLUSTER)


def trouble(error: BaseException) -> Trouble:
    """Return what an error of Redis, or of the way to it, means.

    Parameters:
      error(BaseException): A `redis.RedisError`.
    """
    text = redaction.redact(str(error)).strip()[:_SAID_LENGTH]
    known = _REFUSALS.get(_first_word(error)) or _known_otherwise(error)
    if known:
        return Trouble(*known, said=text or type(error).__name__)
    if isinstance(error, redis.ResponseError):
        return Trouble(f"Redis refuses what it is asked ({text})", "see its log", said=text)
    if isinstance(error, redis.InvalidResponse):
        return Trouble("what answers at SLUICE_REDIS_URL is not a Redis", "correct it", said=type(error).__name__)
    return Trouble(AWAY, "start it, or correct SLUICE_REDIS_URL", said=type(error).__name__)


def _known_otherwise(error: BaseException) -> tuple[str, str] | None:
    """Return what a refusal means by its class, or by its text."""
    if isinstance(error, _OF_A_CLUSTER):
        return _CLUSTER
    return next((known for pattern, known in _REFUSALS_BY_TEXT if pattern.search(str(error))), None)


def _first_word(error: BaseException) -> str:
    """Return the word a refusal began with: redis-py takes the known ones off the text.

    Before Redis 7, what a script met stands behind the place: `... @user_script: 616: -OOM command not allowed ...`.
    """
    place, behind, refusal = str(error).partition(": -")
    if behind and "@user_script" in place:
        return refusal.partition(" ")[0]
    code: str | None = getattr(error, "status_code", None)
    return code or str(error).partition(" ")[0]
