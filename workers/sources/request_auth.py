"""Signs a request with an auth object, and runs its response hooks, whose requests take permits, too."""

from collections.abc import Callable
from typing import Any

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from workers.errors import PermanentError, RetryableError, SluiceError, other_budgets
from workers.failures import FailureClass
from workers.text.error_text import describe

#: Most requests that the hooks of one response can make. Digest makes one, NTLM two.
_MOST_OF_HOOKS = 4

Send = Callable[[requests.PreparedRequest], requests.Response]


def sign(prepared: requests.PreparedRequest, auth: "AuthBase | tuple[str, str] | None", title: str) -> None:
    """Let `auth` add its credentials to a request that is ready to be sent.

    Parameters:
      prepared(requests.PreparedRequest): Complete except for its credentials.
      auth(AuthBase | tuple[str, str] | None): As `requests` takes it.
      title(str): The request, for messages.

    Raises:
      RetryableError: It raised an error. A failure of a token endpoint is more likely than a bug in the code.
      ValueError: The user or the password cannot be sent.
    """
    if auth is None or isinstance(auth, tuple) or type(auth) is HTTPBasicAuth:  # these make no requests; a subclass can
        prepared.prepare_auth(auth, prepared.url or "")
        return
    try:
        with other_budgets():
            prepared.prepare_auth(auth, prepared.url or "")
    except SluiceError:
        raise
    except Exception as error:  # from a user's code, or from a token endpoint
        raise RetryableError(f"{title} was not sent: its auth, {_kind(auth)}, raised {describe(error)}") from None


def run_hooks(response: requests.Response, send: Send, title: str, **options: Any) -> requests.Response:
    """Call the response hooks of a request, for instance that of Digest, and return their last response.

    Parameters:
      response(requests.Response): Its body has been read.
      send(Callable): Sends a request of a hook with a permit; hooks call it as `response.connection.send`.
      title(str): The request, for messages.
      options(Any): What `requests` passes to hooks.

    Raises:
      RetryableError: A hook raised an error.
      PermanentError: A hook returned an object that is no response, or makes too many requests.
    """
    adapter = _HookAdapter(send, title)
    adapter.attach(response)
    for hook in response.request.hooks.get("response") or []:
        try:
            returned = hook(response, **options)
        except SluiceError:
            raise
        except Exception as error:  # from a user's code
            raise RetryableError(f"{title}: a response hook, {_kind(hook)}, raised {describe(error)}") from None
        if not isinstance(returned, (requests.Response, type(None))):
            raise PermanentError(
                f"{title}: a response hook, {_kind(hook)}, returned a {type(returned).__name__} and not a response",
                FailureClass.CONTRACT,
            )
        response = response if returned is None else returned
    return response


class _HookAdapter:
    """Stands in for the HTTP adapter: sends the requests of hooks with permits, up to a maximum."""

    def __init__(self, send: Send, title: str) -> None:
        self._send = send
        self._title = title
        self._left = _MOST_OF_HOOKS

    def attach(self, response: requests.Response) -> requests.Response:
        """Replace the real adapter of a response, which would send without a permit."""
        response.connection = self  # type: ignore[assignment]
        return response

    def send(self, prepared: requests.PreparedRequest, **_: Any) -> requests.Response:
        self._left -= 1
        if self._left < 0:
            raise PermanentError(
                f"{self._title}: its response hooks made more than {_MOST_OF_HOOKS} requests", FailureClass.CONTRACT
            )
        return self.attach(self._send(prepared))


def _kind(thing: Any) -> str:
    return getattr(thing, "__qualname__", type(thing).__name__)
