"""Budgets: lists every budget with its state, the runs that use it, and the pace it allows in the long run."""

from dataclasses import dataclass

from peewee import PeeweeException

from workers.connections import database
from workers.errors import DependencyDown
from workers.limiter.budget import Budget, Limit
from workers.limiter.state import BudgetState
from workers.records import run_connector, schema
from workers.records.tables import ACTIVE, Run
from workers.reports.budget_states import budget_state, known_budgets
from workers.reports.eta import steady
from workers.sources.registry import get_registry


@dataclass(frozen=True)
class User:
    """An active run that uses a budget."""

    run_id: int
    source: str
    tenant: str | None
    status: str


@dataclass(frozen=True)
class BudgetUse:
    """One budget.

    Attributes:
      limits, share: As they are configured.
      state: As it is now; None where Redis does not answer.
      per_second: The requests a second that its windows allow in the long run, as they are now; as they are
        configured, where Redis does not answer.
      decided_by: The window that decides it.
      sources: The sources whose connector has it.
      users: The active runs that use it, the oldest first; None where the database does not answer.
    """

    name: str
    limits: tuple[Limit, ...]
    share: float
    state: BudgetState | None
    per_second: float
    decided_by: str
    sources: tuple[str, ...]
    users: tuple[User, ...] | None


def budget_uses(*, redis_answers: bool = True) -> tuple[tuple[BudgetUse, ...], tuple[str, ...]]:
    """Return every budget, those in use first, and a sentence for each gap: what could not be read.

    Parameters:
      redis_answers(bool): False: Redis is not read, because waiting for one that hangs takes time.

    Raises:
      ConfigurationError: SLUICE_SOURCES cannot be used.
    """
    budgets, gaps = known_budgets()
    users = _users()
    answers, uses = redis_answers, []
    for budget in budgets.values():
        state, answers = _read(budget) if answers else (None, False)  # a Redis that does not answer is asked once
        uses.append(_use(budget, state, None if users is None else tuple(users.get(budget.name, ()))))
    return tuple(sorted(uses, key=lambda use: (not use.users, use.name))), tuple(gaps)


def _read(budget: Budget) -> tuple[BudgetState | None, bool]:
    try:
        return budget_state(budget), True
    except DependencyDown:
        return None, False


def _use(budget: Budget, state: BudgetState | None, users: tuple[User, ...] | None) -> BudgetUse:
    sources = [source.name for source in get_registry().values() if source.connector.budget.name == budget.name]
    allowed, decided_by = steady(state) if state else _configured(budget)
    return BudgetUse(
        name=budget.name,
        limits=budget.limits,
        share=budget.share,
        state=state,
        per_second=allowed,
        decided_by=decided_by,
        sources=tuple(sorted(sources)),
        users=users,
    )


def _configured(budget: Budget) -> tuple[float, str]:
    rates = [limit.requests * budget.share / (limit.window_microseconds / 1e6) for limit in budget.limits]
    return min(zip(rates, map(str, budget.limits), strict=True))


def _users() -> dict[str, list[User]] | None:
    """Return the active runs by the name of their budget; None where the database does not answer."""
    try:
        with database.connection():
            active = list(Run.select().where(Run.status.in_(ACTIVE)).order_by(Run.id)) if schema.is_migrated() else []
    except (DependencyDown, PeeweeException):
        return None
    found: dict[str, list[User]] = {}
    for run in active:
        if budget := run_connector.budget_of(run):  # `known_budgets` reports the runs without one
            found.setdefault(budget.name, []).append(User(run.id, run.source, run.tenant, str(run.status)))
    return found
