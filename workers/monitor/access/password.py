"""Hashes a password (`python -m workers password`) and checks one against its hash, at each login.

Source: RFC 7914 (scrypt), with the work that OWASP's password storage cheat sheet asks for.
"""

import hashlib
import hmac
import os
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode

SHORTEST = 12
#: A longer one would only cost time.
LONGEST = 1024

#: 2^15 blocks of 8: 32 MB and some 80 ms a check.
_LOG_N, _R, _P = 15, 8, 1
_BYTES = 32


def make(password: str, log_n: int = _LOG_N) -> str:
    """Return the hash of a password, which can stand in `.env` without quotes.

    Parameters:
      password(str): The password.
      log_n(int): The cost of a check: one more doubles it.

    Raises:
      ValueError: It is too short, or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"A password has {SHORTEST} to {LONGEST} characters")
    salt = os.urandom(16)
    made = _scrypt(password, salt, log_n, _R, _P)
    return f"scrypt:{log_n}:{_R}:{_P}:{_text(salt)}:{_text(made)}"


def matches(password: str, kept: str) -> bool:
    """Return whether a password has this hash, by a constant-time comparison.

    Parameters:
      password(str): The text that was typed.
      kept(str): The hash, from `make`.
    """
    _, log_n, r, p, salt, wanted = kept.split(":")
    made = _scrypt(password[:LONGEST], _bytes(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(made, _bytes(wanted))


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    # Keyboards send é as one character or as two: both are the same password.
    typed = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    room = 128 * r * (2**log_n + p + 2)
    return hashlib.scrypt(typed, salt=salt, n=2**log_n, r=r, p=p, maxmem=room, dklen=_BYTES)


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
