"""Relearn: forget what an API's answers taught a budget, once the API was mended. Every door does it by this."""

from workers.connections.redis_client import quick_client
from workers.engine import wake_sleeping_runs
from workers.limiter.budget import Budget
from workers.limiter.rate_limiter import RateLimiter
from workers.records.watermark import Watermark
from workers.settings import get_settings


def relearn(budget: Budget, *, who: str) -> bool:
    """Take a budget to be as it is configured: not paced, no longer windows, no limit that the API named.

    What counts against its windows goes on counting, and a pause goes on. A note says who did it. Runs that sleep for
    the budget are woken.

    Parameters:
      budget(Budget): Which.
      who(str): The person.

    Returns:
      bool: False where Redis knows nothing of the budget; then what outlives Redis has been forgotten.

    Raises:
      DependencyDown: Redis, or the database, does not answer.
    """
    settings = get_settings()
    client, watermark = quick_client(settings.redis_url), Watermark(budget.name)
    known = RateLimiter(budget, client, prefix=settings.prefix, watermark=watermark).relearn(who)
    wake_sleeping_runs.wake_budget(budget.name)
    return known
