"""Relearn: resets a budget to its configuration, forgetting what responses taught it, after a repair of the API."""

from workers.connections.redis_client import quick_client
from workers.engine import wake_sleeping_runs
from workers.limiter.budget import Budget
from workers.limiter.rate_limiter import RateLimiter
from workers.records.watermark import Watermark
from workers.settings import get_settings


def relearn(budget: Budget, *, who: str) -> bool:
    """Reset a budget to its configuration: not paced, windows as configured, no limit from the API's headers.

    Permits that count against its windows keep counting, and a pause continues. A note records who did it. Runs that
    sleep for the budget are woken.

    Parameters:
      budget(Budget): The budget.
      who(str): The person, for the note.

    Returns:
      bool: False if Redis has no state of the budget; then what the database stores of it has been reset.

    Raises:
      DependencyDown: Redis or the database does not answer.
    """
    settings = get_settings()
    client, watermark = quick_client(settings.redis_url), Watermark(budget.name)
    known = RateLimiter(budget, client, prefix=settings.prefix, watermark=watermark).relearn(who)
    wake_sleeping_runs.wake_budget(budget.name)
    return known
