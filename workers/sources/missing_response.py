"""Unanswered: why a request has no answer, or only a part of one, in words; and whether the API may have counted it."""

import http.client
import zlib
from typing import Any

import requests
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ReadTimeoutError

from workers.sources.transport import StaleConnection


def why_never_sent(error: Exception, origin: str, timeout_seconds: float) -> str:
    """Say why the request cannot have reached the API; empty where it may have.

    Parameters:
      error(Exception): What the adapter raised.
      origin(str): Scheme, host and port, for the message.
      timeout_seconds(float): How long the request might take.
    """
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {timeout_seconds:g} s"
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, NameResolutionError):
        return f"the name in {origin} is not known"
    if isinstance(reason, NewConnectionError):
        refused = isinstance(reason.__cause__, ConnectionRefusedError)
        return f"{origin} {'refuses connections' if refused else 'cannot be reached'}"
    return ""


def why_unanswered(error: Exception, origin: str, timeout_seconds: float) -> str:
    """Say why no answer came to a request that may have been sent. Parameters are those of `why_never_sent`."""
    cause = _cause(error)
    if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
        return f"no answer within {timeout_seconds:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection to {origin}: is its certificate valid?"
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, ConnectionError):
        return f"what came back is not HTTP ({type(cause).__name__})"
    if isinstance(error, requests.exceptions.InvalidHeader):
        return "what came back is not HTTP (InvalidHeader)"
    if isinstance(cause, StaleConnection):
        return "the connection broke, which the API had kept open"
    return f"the connection broke ({type(error).__name__})"


def is_stale(error: Exception) -> bool:
    """Whether a connection that had answered before was closed without a byte of this answer."""
    return isinstance(_cause(error), StaleConnection)


def why_cut(error: Exception, timeout_seconds: float) -> str:
    """Say why the body of an answer could not be read whole."""
    if error.args and isinstance(error.args[0], ReadTimeoutError):
        return f"was not complete within {timeout_seconds:g} s"
    if isinstance(error, (requests.exceptions.ContentDecodingError, zlib.error)):
        return "is not packed as its Content-Encoding says"
    return f"broke off ({type(error).__name__})"


def _cause(error: Exception) -> Any:
    """Return what lies under a broken connection, where requests and urllib3 have wrapped it."""
    packed = error.args[0] if error.args else None
    return packed.args[1] if isinstance(packed, HTTPError) and len(packed.args) > 1 else None
