"""The button that resets a budget to its configuration: no pacing, no longer windows, no limits from headers."""

from functools import partial
from uuid import uuid4

from workers.control.relearn import relearn
from workers.errors import SluiceError
from workers.limiter.state import BudgetState
from workers.monitor.access import current_user
from workers.monitor.actions import confirm_dialog
from workers.monitor.actions.confirm_dialog import Question
from workers.monitor.html.button import button
from workers.monitor.html.markup import Html, fill
from workers.reports.budget_states import known_budgets

_PRESS = "relearn "


def reset_button(state: BudgetState) -> Html:
    """Return the button for a budget that has learned from responses, if the person can act; else nothing."""
    if not current_user.may_act() or not _has_learned(state):
        return fill("")
    return button("Reset to configuration", _PRESS + state.name, "replay")


def press(name: str) -> None:
    """Open the dialog of the button with that name; do nothing for any other name."""
    if current_user.may_act() and name.startswith(_PRESS):
        confirm_dialog.ask(question(name.removeprefix(_PRESS)))


def question(name: str) -> Question:
    """Return what the dialog asks for the budget with that name."""
    return Question(
        "Reset this budget to its configuration?",
        (
            f"From the next request on, budget {name} uses the limits of its source's code: not paced, no longer "
            "windows, no limits from the API's headers.",
            "Reset it once the problem of the API is fixed. If it is not fixed, the next refusal has the same effect.",
            "Requests that were counted stay counted, and a pause stays in force.",
        ),
        "Reset budget",
        partial(_reset, name),
        f"relearn {name} {uuid4().hex}",
    )


def _has_learned(state: BudgetState) -> bool:
    """Whether responses of the API changed the budget from what is configured."""
    paced = state.profile == "paced" and state.profile_why != "configured so"
    return paced or state.widened_seconds > 0 or any(w.full != w.limit.requests for w in state.windows)


def _reset(name: str) -> str:
    known, _ = known_budgets()
    if name not in known:
        raise SluiceError(f"No source and no active run uses the budget {name} any more.")
    relearn(known[name], who=current_user.name())
    return f"Budget {name} is reset to its configuration"
