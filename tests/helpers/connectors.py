"""Send one request through a connector, and read how many permits it used."""

from typing import Any

import requests

from workers import Connector


def get(connector: Connector, path: str = "x", **options: Any) -> requests.Response:
    caller = connector.permit_client(run_id=1)
    try:
        return connector.send(requests.Request("GET", path, **options), caller)
    finally:
        caller.flush()


def use_of(connector: Connector) -> tuple[int, int]:
    """How many permits are in flight, and how many count in all."""
    state = connector.limiter.snapshot()
    return state.in_flight, state.windows[0].used
