"""The progress bar of a run: succeeded, skipped and failed items of the total, never more than 100 %."""

from workers.monitor.html.markup import Html, fill, join
from workers.reports.run_stats import RunStats


def bar(run: RunStats) -> Html:
    """Return the bar of a run; while the list is being read, one without a percentage."""
    if run.percent is None:
        looks = "sl-bar sl-unknown" if run.started_at and not run.ended_at else "sl-bar"
        return fill('<div class="{looks}" role="progressbar" aria-label="total not known yet"></div>', looks=looks)
    whole = max(run.total or 0, run.done, 1)
    shares = {
        "ok": run.succeeded if run.total else whole,
        "skipped": run.skipped,
        "failed": run.failed,
    }
    parts = [
        fill('<div class="sl-part sl-part-{kind}" style="width:{share}%"></div>', kind=kind, share=100 * number / whole)
        for kind, number in shares.items()
        if number
    ]
    return fill(
        '<div class="sl-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}">'
        "{parts}</div>",
        percent=run.percent,
        parts=join(parts),
    )
