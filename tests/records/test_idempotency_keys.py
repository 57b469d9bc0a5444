"""Act keys: what a page offers is done once, pressed in however many tabs, and a press that comes late does nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from typing import Any

import pytest

from workers import clock
from workers.connections import database
from workers.control import runner
from workers.errors import AlreadyDone, DependencyDown
from workers.monitor.actions import act, lanes_dialog, run_form, run_questions
from workers.monitor.actions.act import Outcome
from workers.records import idempotency_keys, runs, scheduled_runs
from workers.records.tables import ActKey, Run, RunStatus

ME: dict[str, Any] = {"who": "me", "door": "test"}


def test_pressed_in_eight_tabs_at_once_a_run_is_started_once(import_from: Callable[..., Any]) -> None:
    import_from("http://127.0.0.1:1")
    key = idempotency_keys.of_start("items", None, "NEW")

    def press(_: int) -> str:
        with database.connection():
            try:
                with idempotency_keys.once(key, "me"):
                    return str(runner.start("items", send=False, **ME).id)
            except AlreadyDone as error:
                return str(error)

    with ThreadPoolExecutor(8) as tabs:
        said = list(tabs.map(press, range(8)))

    assert Run.select().count() == 1
    assert sorted(text.partition(" ")[0] for text in said) == ["1"] + ["This"] * 7
    assert idempotency_keys.of_start("items", None, "NEW") != key


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda: idempotency_keys.of_start("items", None, "NEW"), lambda: runner.start("items", send=False, **ME)),
        (lambda: idempotency_keys.of_run(1, "pause"), lambda: runner.pause(1, **ME)),
        (lambda: idempotency_keys.of_run(1, "tune"), lambda: runner.set_lanes(1, 3, **ME)),
        (lambda: idempotency_keys.of_run(1, "cancel"), lambda: runner.cancel(1, **ME)),
    ],
    ids=["start", "pause", "tune", "cancel"],
)
def test_what_was_done_changes_the_key(import_from: Callable[..., Any], before: Any, after: Any) -> None:
    import_from("http://127.0.0.1:1")
    runner.start("items", send=False, **ME)
    key = before()
    assert before() == key
    after()
    assert before() != key


def test_an_act_that_failed_may_be_pressed_again(house: pytest.MonkeyPatch) -> None:
    with pytest.raises(DependencyDown), idempotency_keys.once("pause run 1", "me"):
        raise DependencyDown("the database does not answer")
    with idempotency_keys.once("pause run 1", "me"):
        pass
    with (
        pytest.raises(AlreadyDone, match=r"done already by me at \d\d:\d\d:\d\d UTC"),
        idempotency_keys.once("pause run 1", "you"),
    ):
        pytest.fail("it was done twice")


def test_keys_are_forgotten_after_a_day(house: pytest.MonkeyPatch) -> None:
    ActKey.create(key="old", at=clock.now() - timedelta(days=2), who="me")
    with idempotency_keys.once("new", "me"):
        assert [one.key for one in ActKey.select()] == ["new"]


# --- the page's -----------------------------------------------------------------------------------------------------


@pytest.fixture
def operator(import_from: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    import_from("http://127.0.0.1:1")
    return runner.start("items", send=False, **ME)


QUESTIONS = {
    "pause": (run_questions.pause, RunStatus.RUNNING),
    "resume": (run_questions.resume, RunStatus.PAUSED),
    "cancel": (run_questions.cancel, RunStatus.RUNNING),
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_question_that_is_answered_twice_is_obeyed_once(operator: Run, name: str) -> None:
    ask, status = QUESTIONS[name]
    Run.update({Run.status: status}).execute()
    question = ask(runs.get(operator.id))

    first = act.perform(question.do, question.key)
    Run.update({Run.status: status}).execute()  # as after another person's action
    second = act.perform(question.do, question.key)

    assert first.outcome is Outcome.DONE
    assert second.outcome is Outcome.REPEATED


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_form_s_promise_has_a_key_that_two_tabs_share(operator: Run) -> None:
    plans = [run_form.make_plan("items", how, None, UTC) for how in (run_form.NEW, run_form.NEW, run_form.RESCHEDULE)]

    assert plans[0].key == plans[1].key != plans[2].key


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_each_of_two_scheduled_runs_may_be_pulled_forward(import_from: Callable[..., Any]) -> None:
    import_from("http://127.0.0.1:1")
    later = [clock.now() + timedelta(hours=hours) for hours in (1, 2)]
    scheduled = [runner.schedule("items", at, **ME).id for at in later]

    pulled = []
    for _ in scheduled:
        with idempotency_keys.once(run_form.make_plan("items", run_form.RESCHEDULE, None, UTC).key, "me"):
            pulled.append(scheduled_runs.pull_forward("items", clock.now(), tenant=None, **ME).id)
            scheduled_runs.claim(pulled[-1])

    assert pulled == scheduled


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_who_set_what_was_there_may_set_something_else_later(operator: Run) -> None:
    def press(lanes: int) -> str:
        key = lanes_dialog.key_to_use(idempotency_keys.of_run(operator.id, "tune"), (operator.lanes, 0), (lanes, 0))
        return act.perform(lambda: lanes_dialog.change(operator.id, operator.lanes, lanes, 0, 0), key).text

    assert press(operator.lanes) == "Run 1 is unchanged"
    assert press(3) == "Run 1 has 3 lanes"
