"""The address of each page, with its query."""

from urllib.parse import urlencode

#: The address of each page, relative to the first page.
ADDRESSES = RUNS, RUN, SCHEDULE, BUDGETS, SYSTEM = "", "run", "schedule", "budgets", "system"


def to(page: str, **query: object) -> str:
    """Return the address of a page: `run?id=12`."""
    address = page or "./"
    return f"{address}?{urlencode(query)}" if query else address
