"""Maps the status of a response to an error: retry, give up, or check the credentials; with the API's own message."""

from http import HTTPStatus

import requests

from workers.errors import AuthError, NotModified, PermanentError, RetryableError, SluiceError
from workers.failures import FailureClass
from workers.sources import api_message

_NOT_FOUND = {404, 410}
_RETRYABLE = {408, 421, 425}
#: Headers of a conditional request, to which 304 is a valid response.
_CONDITIONS = ("If-None-Match", "If-Modified-Since")


def error_of(response: requests.Response, title: str, connector: str) -> SluiceError | None:
    """Return the error for the status of a response; None for 2xx.

    Parameters:
      response(requests.Response): Its body has been read, if possible.
      title(str): The request, for the message.
      connector(str): The connector whose credentials were sent, for the message.
    """
    status = response.status_code
    if 200 <= status < 300:
        return None
    message = f"{title} answered {status}"
    if status < 400:
        return _without_body(response, message)
    if status in _NOT_FOUND:
        return PermanentError(message, FailureClass.NOT_FOUND)
    words = api_message.of(response)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        quoted = f". The API says: {words}" if words else ""
        return AuthError(f"{message}: check the credentials of connector {connector!r}{quoted}", status)
    message = f"{message}: {words}" if words else message
    if status >= 500 or status in _RETRYABLE:
        return RetryableError(message)
    return PermanentError(message, FailureClass.BAD_DATA)


def _without_body(response: requests.Response, message: str) -> SluiceError:
    """Return the error for 1xx and 3xx."""
    if response.status_code < 200:
        return PermanentError(f"{message}: another protocol was not asked for", FailureClass.CONTRACT)
    if response.status_code != HTTPStatus.NOT_MODIFIED:
        why = "redirects are not followed; set base_url to the final address"
        return PermanentError(f"{message}: {why}", FailureClass.CONTRACT)
    if any(name in response.request.headers for name in _CONDITIONS):
        return NotModified(
            f"{message}: not modified, so there is no body. Send list requests without "
            f"{' and '.join(_CONDITIONS)}, which are for the details of items"
        )
    return PermanentError(
        f"{message}, which is valid only for a request with {' or '.join(_CONDITIONS)}", FailureClass.CONTRACT
    )
