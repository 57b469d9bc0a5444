"""Watch the page as a browser's session does, without the browser: ask for ticks and time them."""

import time
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

_SECONDS = 60.0


class WatchError(Exception):
    """The page did not answer as a page does."""


@dataclass
class Watcher:
    """One session.

    Parameters:
      url(str): The page's address, its path and query included.

    Attributes:
      sent_bytes: What the last tick sent to the browser.
    """

    url: str
    sent_bytes: int = 0
    said: str = ""
    _fragment: str = ""
    _page: str = ""
    _socket: ClientConnection | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        parts = urlsplit(self.url)
        origin = f"http://{parts.netloc}"
        self._socket = connect(
            f"ws://{parts.netloc}/_stcore/stream", subprotocols=["streamlit"], origin=origin, max_size=None
        )  # type: ignore[arg-type]
        self._ask("", parts.path.strip("/"))
        if not self._fragment:
            raise WatchError(f"{self.url} has no part that is drawn each second: {self.said[:300]}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket:
            self._socket.close()

    def tick(self) -> float:
        """Have the live part drawn once.

        Returns:
          float: Seconds from the question to the last word of the answer.
        """
        began = time.perf_counter()
        self._ask(self._fragment)
        return time.perf_counter() - began

    def _ask(self, fragment: str, page: str = "") -> None:
        message = BackMsg()
        state = message.rerun_script
        state.query_string = urlsplit(self.url).query
        state.fragment_id = fragment
        state.page_name = page
        state.page_script_hash = self._page
        state.is_auto_rerun = bool(fragment)
        state.context_info.timezone = "Europe/Paris"
        assert self._socket is not None
        self._socket.send(message.SerializeToString())
        self._listen()

    def _listen(self) -> None:
        assert self._socket is not None
        self.sent_bytes = 0
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            data = self._socket.recv(timeout=_SECONDS)
            assert isinstance(data, bytes)
            self.sent_bytes += len(data)
            if self._heard(ForwardMsg.FromString(data)):
                return
        raise WatchError(f"{self.url} did not finish a tick within {_SECONDS:.0f} s")

    def _heard(self, message: ForwardMsg) -> bool:
        """Take a message in; return whether it was the last one of an answer."""
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._page = message.new_session.page_script_hash
        elif kind == "auto_rerun":
            self._fragment = message.auto_rerun.fragment_id
        elif kind == "delta" and message.delta.new_element.WhichOneof("type") == "exception":
            raise WatchError(f"{self.url}: {message.delta.new_element.exception.message}")
        return kind == "script_finished"
