"""Links: the address of each page."""

from urllib.parse import urlencode

#: The address of each page, below that of the first; and its title.
ADDRESSES = RUNS, RUN, SCHEDULE, BUDGETS, SYSTEM = "", "run", "schedule", "budgets", "system"


def to(page: str, **query: object) -> str:
    """Return the address of a page: `run?id=12`."""
    address = page or "./"
    return f"{address}?{urlencode(query)}" if query else address
