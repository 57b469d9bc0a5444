"""A server that gives every request the same response, and records the requests."""

import contextlib
import time
from collections.abc import Callable, Iterator

from workers import testing


class FixedResponse:
    """What the server sends. Everything can be changed while it serves.

    Attributes:
      status_of: Returns the status of each response; by default `status`.
      delay_seconds: How long it waits before each response.
    """

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers
        self.delay_seconds = 0.0
        self.status_of: Callable[[testing.Request], int] = lambda request: self.status
        self._api = testing.FakeApi(self._answer)

    @property
    def url(self) -> str:
        return self._api.url

    @property
    def server_port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def asked(self) -> list[testing.Request]:
        """The requests that arrived."""
        return self._api.requests

    @property
    def connections(self) -> int:
        return self._api.connections

    def _answer(self, request: testing.Request) -> testing.Response:
        time.sleep(self.delay_seconds)
        return testing.Response(self.status_of(request), self.body, self.headers)


@contextlib.contextmanager
def saying(status: int, body: bytes = b"{}", **headers: str) -> Iterator[FixedResponse]:
    """Serve one response for the length of a block. `Content_Type="..."` is the header Content-Type."""
    fixed = FixedResponse(status, body, {name.replace("_", "-"): value for name, value in headers.items()})
    with testing.serve(fixed._api):
        yield fixed
