"""Spoil a response: the kinds of faults, and the random choice between them."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from flask import Response, jsonify

KINDS = {
    "500": "Internal Server Error as JSON",
    "503": "Service Unavailable as JSON, without Retry-After",
    "timeout": "the right answer, --timeout-seconds late",
    "malformed": "200 with JSON that stops half-way",
    "html": "200 with an HTML error page",
    "reset": "the connection is reset in the middle of the answer",
}

# How the server hands the app a way to reset the connection of the request it is answering.
RESET_CONNECTION = "mock_server.reset_connection"

_HTML_PAGE = """<!doctype html>
<html><head><title>502 Bad Gateway</title></head>
<body><h1>502 Bad Gateway</h1><p>This page was sent by the mock API's fault "html".</p></body></html>
"""


@dataclass(frozen=True)
class Fault:
    """One kind of fault and how often it strikes.

    Parameters:
      kind: One of KINDS.
      probability: The share of the accepted requests it spoils, 0 to 1.

    Raises:
      ValueError: The kind is unknown, or the probability is out of range.
    """

    kind: str
    probability: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault is called {self.kind!r}: choose from {', '.join(KINDS)}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"the probability of {self.kind} is {self.probability}: give 0 to 1")


def parse_fault(text: str) -> Fault:
    """Read a fault as the command line writes it.

    Parameters:
      text: KIND:PROBABILITY, such as `500:0.05`.

    Returns:
      The fault.

    Raises:
      ValueError: The text is not of that form.
    """
    kind, _, probability = text.partition(":")
    try:
        share = float(probability)
    except ValueError:
        raise ValueError(f"{text!r} is no fault: write KIND:PROBABILITY, such as 500:0.05") from None
    return Fault(kind.strip(), share)


class FaultDice:
    """Draws one number for each accepted request, so that a seed decides how many faults N requests meet.

    Parameters:
      faults: What to choose from; what their probabilities leave of 1 is no fault.
      seed: Decides the draws.
    """

    def __init__(self, faults: tuple[Fault, ...], seed: int) -> None:
        self._kinds = [fault.kind for fault in faults]
        self._edges = list(itertools.accumulate(fault.probability for fault in faults))
        self._random = random.Random(f"faults {seed}")

    def draw(self) -> str | None:
        """Return the kind that strikes the next request, or None."""
        drawn = self._random.random()
        for kind, edge in zip(self._kinds, self._edges, strict=True):
            if drawn < edge:
                return kind
        return None


def spoil(response: Response, kind: str, reset_connection: Callable[[], NoReturn] | None) -> Response:
    """Replace an answer with its spoiled form. The request itself has been carried out.

    Parameters:
      response: The right answer.
      kind: What strikes it. `timeout` leaves it as it is: it is sent late.
      reset_connection: Resets the connection; None where there is no socket, as under Flask's test client.

    Returns:
      The answer to send.
    """
    match kind:
        case "500":
            return _json_error(500, "Internal Server Error")
        case "503":
            return _json_error(503, "Service Unavailable")
        case "malformed":
            body = response.get_data()
            return Response(body[: len(body) // 2], 200, mimetype="application/json")
        case "html":
            return Response(_HTML_PAGE, 200, mimetype="text/html")
        case "reset":
            return _reset_halfway(response, reset_connection)
    return response


def _json_error(status: int, message: str) -> Response:
    response = jsonify(message=message)
    response.status_code = status
    return response


def _reset_halfway(response: Response, reset_connection: Callable[[], NoReturn] | None) -> Response:
    body = response.get_data()

    def half_then_reset() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        if reset_connection is None:
            raise ConnectionResetError("the mock API's fault: reset")
        reset_connection()

    headers = {"Content-Length": str(len(body))}
    return Response(half_then_reset(), response.status_code, headers, mimetype="application/json")
