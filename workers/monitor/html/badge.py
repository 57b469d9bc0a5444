"""The status badge of a run: a word and an icon for every label, readable without colours."""

from workers.monitor.html.markup import Html, fill

#: label -> (shape, tone); shapes and tones are classes in css/base.css.
BADGES: dict[str, tuple[str, str]] = {
    "scheduled": ("clock", "plan"),
    "overdue": ("alert", "warn"),
    "pending": ("queue", "calm"),
    "running": ("play", "busy"),
    "pausing": ("pause", "warn"),
    "paused": ("pause", "warn"),
    "completed": ("check", "good"),
    "completed with failures": ("alert", "warn"),
    "failed": ("cross", "bad"),
    "cancelled": ("stop", "calm"),
    "skipped": ("stop", "calm"),
}


def badge(label: str, size: str = "small") -> Html:
    """Return the badge of a run.

    Parameters:
      label(str): `RunStats.label`.
      size(str): small or large.
    """
    shape, tone = BADGES.get(label, ("queue", "calm"))
    return fill(
        '<span class="sl-badge sl-{size} sl-{tone}"><i class="sl-icon sl-i-{shape}"></i>{label}</span>',
        size=size,
        tone=tone,
        shape=shape,
        label=label,
    )
