"""Words the efficiency of a run: which share of its waits were planned before the API had to refuse a request."""


def efficiency_text(share: float | None) -> str:
    """Return an efficiency in words: "97 % (excellent)", rounded down; "no waits yet" without one.

    Parameters:
      share(float | None): Planned waits of all waits, 0 to 1: `RunStats.efficiency`.
    """
    if share is None:
        return "no waits yet"
    grade = "excellent" if share > 0.9 else "fair" if share >= 0.5 else "poor"
    return f"{int(share * 100)} % ({grade})"
