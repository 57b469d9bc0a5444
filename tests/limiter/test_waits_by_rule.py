"""The script agrees with the oracle on refused budgets: own refusals, lessons, others' resets, lost state."""

import pytest
import redis

from tests.helpers.limiter_simulation import Fleet, Mishap, Scenario, mutated
from workers import Limit

SECOND = 1_000_000
#: What befalls a fleet meanwhile.
MISHAPS = (Mishap(90 * SECOND, "lose ring"), Mishap(200 * SECOND, "die"), Mishap(400 * SECOND, "flush"))

REFUSED = Scenario(
    (Limit(20, 10.0),),
    processes=2,
    callers=5,
    requests=120,
    latency_us=300_000,
    kind="sliding log",
    api_limits=(Limit(10, 10.0),),
    remembered=0.8,
    alone=0.5,
    runs=2,
    watermark=True,
    repeated=0.1,
    replies_lost=0.05,
)
TAUGHT = Scenario(
    (Limit(3, 90.0), Limit(1000, 86_400.0)),
    callers=3,
    requests=130,
    latency_us=300_000,
    kind="sliding counter",
    profile="auto",
    watermark=True,
)
SPENT = Scenario(
    (Limit(12, 20.0), Limit(40, 100.0)),
    callers=4,
    requests=120,
    latency_us=300_000,
    kind="sliding log",
    headers="resets",
    foreign="beyond",
    profile="auto",
    share=0.8,
    watermark=True,
)


def run(client: redis.Redis, scenario: Scenario, seed: int, *, unlucky: bool, script: str = "") -> Fleet:
    options = {"seed": seed, "mishaps": MISHAPS if unlucky else ()}
    return Fleet(client, Scenario(**vars(scenario) | options), script=script).run()


@pytest.mark.parametrize("unlucky", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scenario", [REFUSED, TAUGHT, SPENT], ids=["refused", "taught", "spent by others"])
def test_the_script_decides_by_the_rule(client, scenario, seed, unlucky):
    fleet = run(client, scenario, seed, unlucky=unlucky)

    assert fleet.refused
    assert fleet.oracle.calls > 100


def test_lessons_were_forgotten_and_learned_again_in_what_was_tried(client):
    fleet = run(client, TAUGHT, 0, unlucky=False)

    said = [note.text for note in fleet.snapshot.notes]
    assert any("no refusal for 600 s" in text for text in said)
    assert any("again: paced until none was refused for 1200 s" in text for text in said)


@pytest.mark.parametrize(
    ("scenario", "change"),
    [
        (REFUSED, ("(rare().served_at or 0) > order.refused_at", "false")),
        (TAUGHT, ("if level() == 0 or now < relaxes_at() then return end", "if true then return end")),
        (TAUGHT, ("math.min(2 * lasts, LONGEST_RELAX_US)", "lasts")),
        (TAUGHT, ("profile == 'paced' or seconds <= SHORT_SECONDS", "true")),
        (SPENT, ("if its and its[2] > now then return its[1], its[2] end", "")),
        (SPENT, ("if reset_us >= 0 then window.others_until", "if false then window.others_until")),
    ],
    ids=["own", "for good", "as long after a relapse", "the day too", "others free", "no reset"],
)
def test_the_oracle_sees_a_script_that_is_wrong(client, scenario, change):
    with pytest.raises(AssertionError):
        for seed in range(4):
            run(client, scenario, seed, unlucky=False, script=mutated(change))
