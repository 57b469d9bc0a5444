"""An API that answers each path with exact bytes, valid HTTP or not; and the bytes of the demo API's responses."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

Answer = bytes | Callable[[socket.socket], None]


def http(body: bytes | str = b"", *headers: str, status: str = "200 OK", media: str = "application/json") -> bytes:
    body = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media}", "Connection: close", *headers]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def page(*items: object, following: object = None, **more: object) -> bytes:
    return http(json.dumps({"data": items, "next_page_url": following} | more))


def detail(item_id: object = 1) -> bytes:
    return http(json.dumps({"id": item_id, "name": "a", "description": "b", "price": 1}))


def row(item_id: object) -> dict[str, object]:
    return {"id": item_id, "name": "a"}


class API:
    """Answers each path with its bytes, one request a connection. A list of answers is given one after the other."""

    def __init__(self, listener: socket.socket, answers: Mapping[str, Answer | list[Answer]]) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.answers = dict(answers)
        self.asked: list[str] = []
        self._listener = listener

    def work(self, over: threading.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(5)
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        path = connection.recv(65_536).partition(b" ")[2].partition(b" ")[0].decode()
        if not path:
            return
        self.asked.append(path)
        answer = self.answers.get(path) or self.answers.get(path.partition("?")[0]) or http(status="404 Not Found")
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer(connection)
            return
        connection.sendall(answer)


@contextlib.contextmanager
def api(answers: Mapping[str, Answer | list[Answer]]) -> Iterator[API]:
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    server = API(listener, answers)
    thread = threading.Thread(target=server.work, args=(over,))
    thread.start()
    try:
        yield server
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
