"""The relearn button: a budget as it is configured again. What that does is said before it is done."""

from functools import partial
from uuid import uuid4

from workers.control.relearn import relearn
from workers.errors import DependencyDown, SluiceError
from workers.limiter.state import BudgetState
from workers.monitor.access import viewer
from workers.monitor.actions import confirm
from workers.monitor.actions.confirm import Question
from workers.monitor.html.button import button
from workers.monitor.html.markup import Html, fill
from workers.monitor.readings.log_throttle import complain
from workers.reports.budget_states import known_budgets

_PRESS = "relearn "


def relearn_button(state: BudgetState) -> Html:
    """Return it for a budget that has learned something, and a person who may act; else nothing."""
    if not viewer.may_act() or not _has_learned(state):
        return fill("")
    return button("As configured again", _PRESS + state.name, "replay")


def press(name: str) -> None:
    """Ask about what was pressed; of a name that is none of its buttons, nothing comes."""
    if viewer.may_act() and name.startswith(_PRESS):
        confirm.ask(question(name.removeprefix(_PRESS)))


def question(name: str) -> Question:
    """Return what is asked before."""
    return Question(
        "Use this budget as it is configured?",
        (
            f"The budget {name} is used as its source's code says, from the next request on: not paced, its windows "
            "no longer than they are, its limits those of the code.",
            "Do it once the API was mended. If it was not, its next refusal teaches the same again.",
            "What is used of the windows goes on counting, and a pause goes on.",
        ),
        "Forget what the API taught",
        partial(_relearn, name),
        f"relearn {name} {uuid4().hex}",
    )


def _has_learned(state: BudgetState) -> bool:
    """Whether an answer of the API made the budget another one than it is configured to be."""
    paced = state.profile == "paced" and state.profile_why != "configured so"
    return paced or state.widened_seconds > 0 or any(w.full != w.limit.requests for w in state.windows)


def _relearn(name: str) -> str:
    known, _ = known_budgets()
    if name not in known:
        raise SluiceError(f"No source and no active run has the budget {name} any more.")
    try:
        relearn(known[name], who=viewer.who())
    except DependencyDown as error:
        complain(f"the budget {name} was not taken to what is configured", error)
        raise SluiceError("Redis, or the database, does not answer. Do it again when it does.") from error
    return f"{name} is as configured again"
