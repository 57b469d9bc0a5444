"""What an answer that is no success means: an error sorted by what to do next, with what the API says of it."""

from http import HTTPStatus

import requests

from workers.errors import AuthError, NotModified, PermanentError, RetryableError, SluiceError
from workers.failures import FailureClass
from workers.sources import api_message

_NOT_FOUND = {404, 410}
_RETRYABLE = {408, 421, 425}
#: Headers that make a request conditional, of those that a 304 answers.
_CONDITIONS = ("If-None-Match", "If-Modified-Since")


def error_of(response: requests.Response, title: str, connector: str) -> SluiceError | None:
    """Return the error that an answer means; None for a success.

    Parameters:
      response(requests.Response): Its body has been read, as far as it could be.
      title(str): The request, for the message.
      connector(str): Whose credentials it was sent with.
    """
    status = response.status_code
    if 200 <= status < 300:
        return None
    said = f"{title} answered {status}"
    if status < 400:
        return _without_body(response, said)
    if status in _NOT_FOUND:
        return PermanentError(said, FailureClass.NOT_FOUND)
    words = api_message.of(response)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        quoted = f". The API says: {words}" if words else ""
        return AuthError(f"{said}: check the credentials of connector {connector!r}{quoted}", status)
    said = f"{said}: {words}" if words else said
    if status >= 500 or status in _RETRYABLE:
        return RetryableError(said)
    return PermanentError(said, FailureClass.BAD_DATA)


def _without_body(response: requests.Response, said: str) -> SluiceError:
    """Return what 1xx and 3xx mean."""
    if response.status_code < 200:
        return PermanentError(f"{said}: nobody asked for another protocol", FailureClass.CONTRACT)
    if response.status_code != HTTPStatus.NOT_MODIFIED:
        why = "redirects are not followed; set base_url to the final address"
        return PermanentError(f"{said}: {why}", FailureClass.CONTRACT)
    if any(name in response.request.headers for name in _CONDITIONS):
        return NotModified(
            f"{said}: it is unchanged, and there is no body to read. Ask without {' and '.join(_CONDITIONS)}, which "
            f"are for the details of items"
        )
    return PermanentError(
        f"{said}, which nobody asked for: it answers a request with {' or '.join(_CONDITIONS)}", FailureClass.CONTRACT
    )
