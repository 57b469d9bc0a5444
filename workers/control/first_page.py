"""First page: requests the first list page of a source with one permit, as `plan` and `doctor --ask` do."""

from dataclasses import dataclass
from typing import Any

from workers import clock
from workers.errors import PermanentError, RateLimited
from workers.failures import FailureClass
from workers.limiter.permits import PermitClient
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.request_purpose import asking
from workers.text.error_text import describe

#: The cursor of a source's first list page.
FIRST_CURSOR = 1


@dataclass(frozen=True)
class FirstPage:
    """The response, as it was received.

    Attributes:
      data: Its body, decoded.
      answer_seconds: From the request to the end of the body; the wait for the permit is not part of it.
    """

    data: Any
    answer_seconds: float


def request_for(source: ImportSource) -> Any:
    """Return the list request of a source's first page; nothing is sent.

    Raises:
      PermanentError: Its `get_list_request` fails; its class is `bug`.
    """
    try:
        return source.get_list_request(FIRST_CURSOR, source.per_page)
    except Exception as error:  # code of the user, which can fail in any way
        title = type(source).__name__
        raise PermanentError(f"{title}.get_list_request fails: {describe(error)}", FailureClass.BUG) from error


def fetch(source: ImportSource, connector: Connector, permits: PermitClient, request: Any) -> FirstPage:
    """Send the request once, with a permit, and return the response.

    Parameters:
      connector(Connector): The API that is asked.
      permits(PermitClient): Its permits; flushed afterwards.
      request(Any): The result of `request_for`.

    Raises:
      RateLimited: The budget is closed for longer than SLUICE_MAX_WAIT_SECONDS, or the API refused.
      RetryableError, PermanentError: The API did not answer, or not with a body that can be decoded.
      DependencyDown: Redis does not answer, so there is no permit.
    """
    try:
        _await_permit(permits, connector)
        sent_at = clock.monotonic()
        with asking(f"{source.name} list page 1"):
            data = connector.get_json(request, permits)
        return FirstPage(data, clock.monotonic() - sent_at)
    finally:
        permits.flush()


def _await_permit(permits: PermitClient, connector: Connector) -> None:
    """Reserve the permit before the request, so that the wait for it is not measured as the API's.

    Raises:
      RateLimited: The wait is longer than SLUICE_MAX_WAIT_SECONDS.
    """
    ends_at = clock.monotonic() + get_settings().max_wait_seconds
    longest, permits.max_wait_seconds = permits.max_wait_seconds, 0.0
    try:
        while True:
            try:
                permits.reserve(connector.timeout_seconds)
                return
            except RateLimited as closed:
                if clock.monotonic() + closed.wait_seconds > ends_at or clock.sleep(closed.wait_seconds):
                    raise
    finally:
        permits.max_wait_seconds = longest  # a login that takes a second request can wait for its permit
