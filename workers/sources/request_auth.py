"""Signing: what an auth object does to a request before it is sent, and the requests that response hooks make after."""

from collections.abc import Callable
from typing import Any

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from workers.errors import PermanentError, RetryableError, SluiceError, other_budgets
from workers.failures import FailureClass
from workers.text.error_text import describe

#: The most requests that the hooks of one answer make. Digest makes one, NTLM two.
_MOST_OF_HOOKS = 4

Send = Callable[[requests.PreparedRequest], requests.Response]


def sign(prepared: requests.PreparedRequest, auth: "AuthBase | tuple[str, str] | None", title: str) -> None:
    """Let `auth` put its credentials on a request that is ready to be sent.

    Parameters:
      prepared(requests.PreparedRequest): Everything but the credentials is on it.
      auth(AuthBase | tuple[str, str] | None): As `requests` takes it.
      title(str): The request, for messages.

    Raises:
      RetryableError: It raised something: a token's endpoint has a hiccup more often than the code has a fault.
      ValueError: A user or a password cannot be sent.
    """
    if auth is None or isinstance(auth, tuple) or type(auth) is HTTPBasicAuth:  # which ask nobody; a subclass may
        prepared.prepare_auth(auth, prepared.url or "")
        return
    try:
        with other_budgets():
            prepared.prepare_auth(auth, prepared.url or "")
    except SluiceError:
        raise
    except Exception as error:  # of a user's code, or of a token's endpoint
        raise RetryableError(f"{title} was not sent: its auth, {_kind(auth)}, raised {describe(error)}") from None


def run_hooks(response: requests.Response, send: Send, title: str, **options: Any) -> requests.Response:
    """Call the response hooks of a request, as Digest has one, and return the answer that they end with.

    Parameters:
      response(requests.Response): Its body has been read.
      send(Callable): Sends a request of theirs, with a permit of its own. It is `response.connection.send` for them.
      title(str): The request, for messages.
      options(Any): What requests passes on to hooks.

    Raises:
      RetryableError: A hook raised something.
      PermanentError: It returned what is no response, or makes requests without end.
    """
    door = _Door(send, title)
    door.guard(response)
    for hook in response.request.hooks.get("response") or []:
        try:
            answer = hook(response, **options)
        except SluiceError:
            raise
        except Exception as error:  # of a user's code
            raise RetryableError(f"{title}: a response hook, {_kind(hook)}, raised {describe(error)}") from None
        if not isinstance(answer, (requests.Response, type(None))):
            raise PermanentError(
                f"{title}: a response hook, {_kind(hook)}, returned a {type(answer).__name__} and not a response",
                FailureClass.CONTRACT,
            )
        response = response if answer is None else answer
    return response


class _Door:
    """What a hook takes for the adapter: it sends what the hook gives it, a few times."""

    def __init__(self, send: Send, title: str) -> None:
        self._send = send
        self._title = title
        self._left = _MOST_OF_HOOKS

    def guard(self, response: requests.Response) -> requests.Response:
        """Stand before the adapter, which would send without a permit."""
        response.connection = self  # type: ignore[assignment]
        return response

    def send(self, prepared: requests.PreparedRequest, **_: Any) -> requests.Response:
        self._left -= 1
        if self._left < 0:
            raise PermanentError(
                f"{self._title}: its response hooks made more than {_MOST_OF_HOOKS} requests", FailureClass.CONTRACT
            )
        return self.guard(self._send(prepared))


def _kind(thing: Any) -> str:
    return getattr(thing, "__qualname__", type(thing).__name__)
