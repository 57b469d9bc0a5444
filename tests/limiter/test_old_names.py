"""The limiter's old names work as the new ones do, and each warns: Permit.heard, RateLimiter.caller, granularity."""

from dataclasses import replace

import pytest

from tests.helpers.limiters import limiter_on
from workers import Limit, RateLimiter
from workers.errors import Refused


def test_permit_heard_reports_the_response(client, moved_clock):
    limiter = limiter_on(client, Limit(10, seconds=20))

    with (
        limiter.permit() as permit,
        pytest.warns(DeprecationWarning, match=r"Permit\.heard .* use Permit\.report") as caught,
    ):
        permit.heard(200, {})
    with pytest.raises(Refused), limiter.permit() as permit, pytest.warns(DeprecationWarning):
        permit.heard(429, {"Retry-After": "7"})

    assert caught[0].filename == __file__
    assert limiter.snapshot().paused_for_seconds == 8


def test_caller_returns_a_permit_client(client, moved_clock):
    limiter = limiter_on(client, Limit(10, seconds=20))

    with pytest.warns(DeprecationWarning, match=r"RateLimiter\.caller .* use RateLimiter\.permit_client") as caught:
        client_of_run = limiter.caller(7, "lane")

    assert caught[0].filename == __file__
    assert (client_of_run.run_id, client_of_run.name) == (7, "lane")
    assert client_of_run.acquire(5.0).fresh


def test_granularity_is_granularity_seconds():
    with pytest.warns(DeprecationWarning, match="granularity_seconds") as caught:
        old = Limit(500, seconds=20, granularity=1)

    assert caught[0].filename == __file__
    assert old == Limit(500, 20, 1) == Limit(500, seconds=20, granularity_seconds=1)
    with pytest.warns(DeprecationWarning, match="granularity_seconds"):
        assert old.granularity == 1
    with pytest.warns(DeprecationWarning):
        assert replace(old, granularity=2).window_microseconds > old.window_microseconds


def test_run_control_is_not_on_the_limiter():
    public = {name for name in dir(RateLimiter) if not name.startswith("_")}

    assert public == {"permit", "permit_client", "snapshot", "relearn", "caller"}
