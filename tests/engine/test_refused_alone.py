"""A refusal is an item's own, if other requests were granted and answered since it was refused before."""

import pytest

from tests.helpers.limiters import SECOND, ask, beside, move_by, move_to, refusal, use
from workers import Limit, RateLimiter
from workers.errors import RateLimited, Refused
from workers.limiter.permits import Subject


def refuse(limiter: RateLimiter, subject: Subject, **headers: str) -> Refused:
    """One request for that item, which the API refuses."""
    caller = limiter.permit_client(7)
    caller.subject = subject
    permit = caller.acquire(5.0)
    with pytest.raises(RateLimited) as caught:
        caller.report(permit, 429, {name.replace("_", "-"): text for name, text in headers.items()})
    assert isinstance(caught.value, Refused)
    caught.value.hits = caller.usage.hits  # type: ignore[attr-defined]
    return caught.value


def after(limiter: RateLimiter, seconds: float) -> None:
    move_by(round(seconds * SECOND))


#: What happens between two refusals of one item, and whether the second one is its own.
BETWEEN = {
    "nothing": (lambda limiter: None, False),
    "another was answered": (lambda limiter: use(limiter.permit_client()), True),
    "another was not found": (lambda limiter: ask(limiter, 404, {}), True),
    "another was refused": (lambda limiter: (ask(limiter, 429, {"Retry-After": "0"}), after(limiter, 10)), False),
    "another met a broken server": (lambda limiter: ask(limiter, 500, {}), False),
    "another met a broken server that asks to wait": (
        lambda limiter: (ask(limiter, 503, {"Retry-After": "0"}), after(limiter, 10)),
        False,
    ),
    "another was never answered": (lambda limiter: (limiter.permit_client().acquire(5.0), after(limiter, 60)), False),
    "another was not sent": (lambda limiter: (c := limiter.permit_client()).unsent(c.acquire(5.0)), False),
}


@pytest.mark.parametrize(("between", "own"), BETWEEN.values(), ids=BETWEEN)
def test_a_second_refusal_is_its_items_own_where_others_were_answered_since(new, between, own):
    limiter = new(Limit(100, seconds=10))
    first = refuse(limiter, Subject(), Retry_After="2")
    assert (first.own, first.at_us > 0) == (False, True)
    after(limiter, 3)

    between(limiter)
    second = refuse(limiter, Subject(refused_at_us=first.at_us), Retry_After="2")

    assert second.own is own
    assert second.at_us > first.at_us


def test_an_answer_after_which_the_same_is_asked_again_is_not_another_s(new):
    # Given an item that each time is answered by a challenge, which is obeyed, and then refused
    limiter, at_us, found = new(Limit(100, seconds=10)), 0, []
    for _ in range(3):
        caller = limiter.permit_client(7)
        caller.subject = Subject(at_us)
        caller.report(caller.acquire(5.0), 401, {})
        caller.ask_again()
        again = caller.acquire(5.0)
        if found:  # it is the canary, as its first request was
            assert "one request is out" in refusal(beside(limiter).permit_client()).reason
        with pytest.raises(Refused) as caught:
            caller.report(again, 429, {"Retry-After": "2"})
        at_us = caught.value.at_us
        found.append((caught.value.own, caught.value.wait_seconds))
        after(limiter, caught.value.wait_seconds)

    # Then nothing is known of others: the budget pauses, longer each time
    assert found == [(False, 3.0), (False, 6.0), (False, 12.0)]


def test_what_was_granted_before_the_first_refusal_says_nothing(new):
    # Given a slow request that was granted before an item was refused, and is answered after it
    limiter = new(Limit(100, seconds=10))
    slow = limiter.permit_client()
    permit = slow.acquire(30.0)
    move_to(SECOND)
    first = refuse(limiter, Subject(), Retry_After="0")
    slow.answered(permit)
    slow.flush()
    after(limiter, 2)

    assert not refuse(limiter, Subject(refused_at_us=first.at_us), Retry_After="0").own


def test_of_two_items_refused_after_each_other_each_is_judged_by_its_own_time(new):
    # Given another's permit, granted between the refusals of two items, and answered after both
    limiter = new(Limit(100, seconds=10))
    one, two, other = limiter.permit_client(), limiter.permit_client(), limiter.permit_client()
    refused = []
    permits = [caller.acquire(30.0) for caller in (one, two)]
    for caller, permit, second in ((one, permits[0], 1), (two, permits[1], 5)):
        move_to(second * SECOND)
        with pytest.raises(Refused) as caught:
            caller.report(permit, 429, {"Retry-After": "0"})
        refused.append(caught.value)
        if caller is one:
            move_to(3 * SECOND)
            granted = other.acquire(30.0)
    move_to(6 * SECOND)
    other.answered(granted)
    other.flush()
    move_to(20 * SECOND)

    assert not refuse(limiter, Subject(refused_at_us=refused[1].at_us), Retry_After="0").own
    move_to(40 * SECOND)
    assert refuse(limiter, Subject(refused_at_us=refused[0].at_us), Retry_After="0").own


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry_After": "2"}, 3.0),
        ({"Retry_After": "7200"}, 7201.0),
        ({"Retry_After": "200000"}, 90_000.0),
        ({}, 60.0),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "subject", [Subject(1, alone=True), Subject(0, alone=True)], ids=["known", "of another process"]
)
def test_an_item_that_is_refused_alone_waits_alone(new, subject, headers, wait):
    # Given a budget at work
    limiter = new(Limit(100, seconds=10), profile="auto")
    use(limiter.permit_client(), 3)
    move_to(SECOND)

    # When an item of it is refused that was found to be refused alone
    found = refuse(limiter, subject, **headers)

    # Then it waits as long as was asked, the hit is counted, and the budget has not paused, or learned
    assert (found.own, found.wait_seconds, found.hits) == (True, wait, 1)  # type: ignore[attr-defined]
    assert type(found) is Refused
    state = limiter.snapshot()
    assert (state.hits, state.paused_for_seconds, state.canary, state.profile) == (1, 0.0, False, "burst")
    use(limiter.permit_client(), 20)
    assert refuse(limiter, subject, **headers).hits == 1  # type: ignore[attr-defined]
    assert limiter.snapshot().hits == 2


def test_a_canary_that_was_refused_alone_is_none_and_another_goes_first(new):
    # Given a pause that has ended, and an item as its canary
    limiter = new(Limit(100, seconds=10))
    ask(limiter, 429, {"Retry-After": "2"})
    after(limiter, 3)
    refuse(limiter, Subject(1, alone=True), Retry_After="2")

    # Then the next one is a canary, and the row of refusals is as long as before
    caller = limiter.permit_client()
    permit = caller.acquire(5.0)
    assert "one request is out" in refusal(beside(limiter).permit_client()).reason
    with pytest.raises(Refused) as caught:
        caller.report(permit, 429, {"Retry-After": "2"})
    assert caught.value.wait_seconds == 6.0


def test_what_the_first_refusal_taught_is_taken_back_when_the_second_is_the_items_own(new):
    # Given a budget that became paced for a refusal that nothing explained
    limiter = new(Limit(100, seconds=10), profile="auto")
    first = refuse(limiter, Subject(), Retry_After="2")
    assert limiter.snapshot().profile == "paced"
    after(limiter, 3)
    use(limiter.permit_client())

    refuse(limiter, Subject(refused_at_us=first.at_us), Retry_After="2")

    state = limiter.snapshot()
    assert (state.profile, state.profile_why, state.paused_for_seconds) == ("burst", "", 0.0)
    assert state.notes[0].text == "the refusal that it was paced for was of one request alone"


def test_what_another_refusal_taught_is_kept(new):
    # Given an item that was refused, and another one whose refusal taught the budget to be paced
    limiter = new(Limit(100, seconds=10), profile="auto")
    first = refuse(limiter, Subject(), Retry_After="20")  # longer than any window: it teaches nothing
    after(limiter, 21)
    use(limiter.permit_client())
    after(limiter, 1)
    refuse(limiter, Subject(), Retry_After="1")
    assert limiter.snapshot().profile == "paced"
    after(limiter, 3)
    use(limiter.permit_client())

    assert refuse(limiter, Subject(refused_at_us=first.at_us), Retry_After="2").own

    assert limiter.snapshot().profile == "paced"
