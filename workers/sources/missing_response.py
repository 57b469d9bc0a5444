"""Explains why a request has no complete response, and decides whether it can have reached the API."""

import http.client
import zlib
from typing import Any

import requests
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ReadTimeoutError

from workers.sources.transport import StaleConnection


def why_never_sent(error: Exception, origin: str, timeout_seconds: float) -> str:
    """Return why the request cannot have reached the API; empty if it can have.

    Parameters:
      error(Exception): The exception of the adapter.
      origin(str): Scheme, host and port, for the message.
      timeout_seconds(float): The timeout of the request.
    """
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {timeout_seconds:g} s"
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, NameResolutionError):
        return f"the host name in {origin} is not known"
    if isinstance(reason, NewConnectionError):
        refused = isinstance(reason.__cause__, ConnectionRefusedError)
        return f"{origin} {'refuses connections' if refused else 'cannot be reached'}"
    return ""


def why_unanswered(error: Exception, origin: str, timeout_seconds: float) -> str:
    """Return why no response came to a request that can have been sent. Parameters are as for `why_never_sent`."""
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
        return "the API closed a connection that it had kept open"
    return f"the connection broke ({type(error).__name__})"


def is_stale(error: Exception) -> bool:
    """Whether a reused connection was closed without a byte of this response."""
    return isinstance(_cause(error), StaleConnection)


def why_cut(error: Exception, timeout_seconds: float) -> str:
    """Return why the body of a response could not be read completely."""
    if error.args and isinstance(error.args[0], ReadTimeoutError):
        return f"was not complete within {timeout_seconds:g} s"
    if isinstance(error, (requests.exceptions.ContentDecodingError, zlib.error)):
        return "is not compressed as its Content-Encoding says"
    return f"broke off ({type(error).__name__})"


def _cause(error: Exception) -> Any:
    """Return the exception that requests and urllib3 have wrapped, if there is one."""
    packed = error.args[0] if error.args else None
    return packed.args[1] if isinstance(packed, HTTPError) and len(packed.args) > 1 else None
