"""The progress bar: what succeeded, was skipped and failed, of all there is. It never shows more than there is."""

from workers.monitor.html.markup import Html, fill, join
from workers.reports.run_stats import RunStats


def bar(run: RunStats) -> Html:
    """Return the bar of a run; while the list is being read, one that promises nothing."""
    if run.percent is None:
        looks = "sl-bar sl-unknown" if run.started_at and not run.ended_at else "sl-bar"
        return fill('<div class="{looks}" role="progressbar" aria-label="the list is not known"></div>', looks=looks)
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
