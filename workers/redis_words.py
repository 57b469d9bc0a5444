"""Redis words: what is the matter where Redis refuses, or does not answer, and the repair. Every door uses these."""

from dataclasses import dataclass

import redis

from workers import redaction

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
    "NOPERM": ("Redis forbids its user what Sluice needs", "allow it to the user that SLUICE_REDIS_URL names"),
}


def trouble(error: BaseException) -> Trouble:
    """Return what an error of Redis, or of the way to it, means.

    Parameters:
      error(BaseException): A `redis.RedisError`.
    """
    text = redaction.redact(str(error)).strip()[:_SAID_LENGTH]
    known = _REFUSALS.get(_first_word(error))
    if known:
        return Trouble(*known, said=text or type(error).__name__)
    if isinstance(error, redis.ResponseError):
        return Trouble(f"Redis refuses what it is asked ({text})", "see its log", said=text)
    if isinstance(error, redis.InvalidResponse):
        return Trouble("what answers at SLUICE_REDIS_URL is not a Redis", "correct it", said=type(error).__name__)
    return Trouble(AWAY, "start it, or correct SLUICE_REDIS_URL", said=type(error).__name__)


def _first_word(error: BaseException) -> str:
    """Return the word a refusal began with: redis-py takes the known ones off the text.

    Before Redis 7, what a script met stands behind the place: `... @user_script: 616: -OOM command not allowed ...`.
    """
    place, behind, refusal = str(error).partition(": -")
    if behind and "@user_script" in place:
        return refusal.partition(" ")[0]
    code: str | None = getattr(error, "status_code", None)
    return code or str(error).partition(" ")[0]
