"""Budget states: reads from Redis how full a budget is now, and lists the budgets of all sources and active runs."""

import math
from functools import lru_cache

from peewee import InterfaceError, OperationalError

from workers.connections import database, outages
from workers.connections.redis_client import shared_quick_client
from workers.connections.trouble import Cause
from workers.errors import DependencyDown
from workers.limiter.budget import Budget
from workers.limiter.rate_limiter import RateLimiter
from workers.limiter.state import BudgetState
from workers.records import request_weights, run_connector, schema
from workers.records.tables import ACTIVE, Run
from workers.settings import get_settings
from workers.sources.registry import get_registry


def budget_state(budget: Budget, weight: int = 1) -> BudgetState:
    """Return the state of a budget.

    Parameters:
      weight(int): The weight of the request that waits for a permit.

    Raises:
      DependencyDown: Redis does not answer.
    """
    settings = get_settings()
    return _limiter(budget, settings.redis_url, settings.prefix).snapshot(weight)


def budget_state_of(run: Run) -> BudgetState | None:
    """Return the state of a run's budget, for the weight of its next request; None where it cannot be read.

    Redis does not answer, the source is not registered, or its `get_connector` fails: other runs are shown all the
    same.
    """
    try:
        return budget_state(run_connector.of(run).budget, math.ceil(request_weights.detail_weight(run)))
    except Exception:  # code of the user, which can fail in any way
        return None


@lru_cache(maxsize=1024)
def _limiter(budget: Budget, redis_url: str, prefix: str) -> RateLimiter:
    """Return a limiter with short timeouts: a page that reads it every second must not hang where Redis does."""
    return RateLimiter(budget, shared_quick_client(redis_url), prefix=prefix)


def known_budgets() -> tuple[dict[str, Budget], list[str]]:
    """Return all budgets by name, and a sentence for each one that could not be read.

    Returns:
      tuple[dict[str, Budget], list[str]]: The budgets of the sources' connectors, then those that active runs use
        instead (tenants); and what keeps the list from being complete.
    """
    found = {source.connector.budget.name: source.connector.budget for source in get_registry().values()}
    gaps = []
    try:
        with database.connection():
            for run in _active_runs():
                connector = run_connector.connector_or_error(run)
                if isinstance(connector, Exception):
                    kind = getattr(connector, "kind", type(connector).__name__)
                    gaps.append(f"run {run.id}: its budget is unknown, because get_connector failed ({kind})")
                else:
                    found.setdefault(connector.budget.name, connector.budget)
    except (DependencyDown, OperationalError, InterfaceError):
        gaps.append("the database does not answer: only the budgets that sources name are known")
    outage = outages.redis_trouble() or outages.reported_trouble()
    if outage and outage.cause is Cause.REDIS_REFUSES:
        gaps.append(f"{outage.headline}: no permit without it. To do: {outage.repair}")
    elif outage and outage.cause is not Cause.REDIS_AWAY:  # reading a budget reports that one
        gaps.append(outage.sentence)
    return found, gaps


def _active_runs() -> list[Run]:
    active = Run.select().where(Run.status.in_(ACTIVE)).order_by(Run.id)
    return list(active) if schema.is_migrated() else []
