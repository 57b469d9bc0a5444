"""Which responses are refusals: a table of every status with its headers, and the effect on a run."""

import pytest
from requests.structures import CaseInsensitiveDict

from models import Item
from workers import Budget, Connector, Limit, clock, testing
from workers.control import runner
from workers.limiter.response import read_response
from workers.records.tables import ItemStatus, RunItem, RunStatus

BUDGET = Budget("api", [Limit(5000, seconds=3600)])

SAYS = {
    "nothing": {},
    "seconds": {"Retry-After": "8"},
    "two lines": {"Retry-After": "8, 8"},
    "a unit": {"Retry-After": "8s"},
    "a date": {"Date": "Sun, 01 Mar 2026 12:00:00 GMT", "Retry-After": "Sun, 01 Mar 2026 12:00:08 GMT"},
    "ISO 8601": {"Date": "Sun, 01 Mar 2026 12:00:00 GMT", "Retry-After": "2026-03-01T12:00:08Z"},
    "milliseconds": {"Retry-After-Ms": "8000"},
    "malformed": {"Retry-After": "soon"},
    "spent": {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "8"},
    "room": {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "8"},
    "spent, and no reset": {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0"},
}
ASKS = {"seconds", "two lines", "a unit", "a date", "ISO 8601", "milliseconds"}
ALWAYS = set(SAYS)

#: Status -> with what it is a refusal.
REFUSES: dict[int, set[str]] = {
    **dict.fromkeys((408, 420, 425, 500, 501, 502, 504, 507, 520, 529, 599), ASKS),
    **{status: ASKS | {"spent"} for status in (403, 503)},
    429: ALWAYS,
    **{status: set() for status in (200, 202, 204, 301, 302, 304, 400, 401, 404, 409, 410, 413, 418, 421, 422, 451)},
}


@pytest.mark.parametrize("status", REFUSES)
@pytest.mark.parametrize("says", SAYS)
def test_whether_an_answer_refuses(status, says):
    answer = read_response(BUDGET, status, CaseInsensitiveDict(SAYS[says]), clock.now())

    assert answer.refused == (says in REFUSES[status])
    waits = 9 if says in ASKS | {"spent"} else None
    assert answer.wait_seconds == (waits if answer.refused else None)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("nothing", "the API answered 429, without Retry-After"),
        ("two lines", "the API answered 429, Retry-After 8, 8"),
        ("milliseconds", "the API answered 429, Retry-After-Ms 8000"),
        ("malformed", "the API answered 429, Retry-After soon, which cannot be read"),
        ("spent", "the API answered 429, nothing left for 8 s"),
    ],
)
def test_a_refusal_s_reason_holds_what_was_said(says, reason):
    assert read_response(BUDGET, 429, CaseInsensitiveDict(SAYS[says]), clock.now()).reason == reason


def test_a_refusal_s_reason_holds_no_secret_and_no_character_that_steers(environment):
    # Given an API that says in its headers what it was sent, the key cut off where the reason is
    connector = Connector(
        "api", base_url="http://127.0.0.1:1", limits=BUDGET.limits, headers={"X-Api-Key": "K-12345678"}
    )
    headers = {
        "Retry-After": "8",
        "X-Retry-After": "\x1b[31m\x85K-12345678",
        "X-Retry-After-Ms": f"{'x' * 33} K-12345678",
    }

    reason = read_response(connector.budget, 429, CaseInsensitiveDict(headers), clock.now()).reason

    assert "K-1" not in reason
    assert reason.startswith("the API answered 429, Retry-After 8, X-Retry-After  [31m ***, X-Retry-After-Ms xxx")


@pytest.mark.parametrize("where", ["list", "details"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {"Retry-After": "60"}),
        (403, {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}),
        (504, {"Retry-After": "60"}),
    ],
    ids=["403 that asks", "403 with nothing left", "504 that asks"],
)
def test_a_refusal_of_any_status_pauses_the_run_and_fails_no_item(moved_clock, import_from, where, status, headers):
    # Given an API that from some request on refuses for a minute, though it is not with a 429
    since: list[float] = []
    refused = []

    def answer(request: testing.Request) -> object:
        path = request.path
        is_there = path == "/api/items" if where == "list" else path == "/api/items/5"
        if is_there and not since:
            since.append(clock.monotonic())
        if since and clock.monotonic() < since[0] + 60:
            refused.append(path)
            return testing.Response(status, {"message": "You have exceeded a secondary rate limit"}, headers)
        if path == "/api/items":
            return {"data": [{"id": n, "name": "a"} for n in range(1, 11)], "next_page_url": None}
        return {"id": int(path.rpartition("/")[2]), "name": "a", "description": "b", "price": 1}

    with testing.api(answer) as api:
        import_from(api.url, limits=(Limit(5000, seconds=60),), lanes=2)
        run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    # Then it waited, all of it once, and everything came in at the first attempt
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 10, 0)
    assert RunItem.select().where(RunItem.status != ItemStatus.COMPLETED).count() == 0
    assert RunItem.select().where(RunItem.attempts != 1).count() == 0
    assert Item.select().count() == 10
    assert (len(refused), run.rate_limit_hits_count) == (1, 1)
    assert 61 <= clock.monotonic() - since[0] < 75
