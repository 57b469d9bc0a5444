"""A schedule in words: the times of its slots, its catch-up policy, and the effects of a change."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from workers.cron import CatchUp
from workers.monitor.html.markup import Html, fill, join
from workers.scheduling.preview import SchedulePlan
from workers.scheduling.slot_rules import Begin, Cancel, Make, Move, Skip

#: The catch-up policy: what happens to slots that were missed because no scheduler ran.
CATCH_UP: Mapping[str, str] = {
    CatchUp.LATEST: "run the latest missed slot",
    CatchUp.NONE: "skip missed slots",
    CatchUp.ALL: "run every missed slot",
}
#: The same in a few words, for a table.
CATCH_UP_SHORT: Mapping[str, str] = {
    CatchUp.LATEST: "run the latest",
    CatchUp.NONE: "skip",
    CatchUp.ALL: "run all",
}
_A_WEEK = timedelta(days=6)


def slot(at: datetime, zone: tzinfo, now: datetime) -> Html:
    """Return a slot in the viewer's zone, with its day where that is not today; UTC on hover."""
    utc = f"{at.astimezone(UTC):%a %Y-%m-%d %H:%M} UTC"
    shown = day_and_time(at.astimezone(zone), now.astimezone(zone))
    return fill('<time datetime="{iso}" title="{utc}">{shown}</time>', iso=at.isoformat(), utc=utc, shown=shown)


def day_and_time(local: datetime, today: datetime) -> str:
    """Return `09:00` of today, `Tue 09:00` of the days around, else with the date."""
    if local.date() == today.date():
        return f"{local:%H:%M}"
    if abs(local.date() - today.date()) <= _A_WEEK:
        return f"{local:%a %H:%M}"
    return f"{local:%a %d %b}{'' if local.year == today.year else f' {local.year}'} {local:%H:%M}"


def slots(next_at: Sequence[datetime], zone: tzinfo, now: datetime) -> Html:
    """Return slots in the viewer's zone."""
    return join((slot(at, zone, now) for at in next_at), ", ")


def elsewhere(next_at: Sequence[datetime], timezone: str, zone: tzinfo, now: datetime) -> Html:
    """Return slots in the schedule's own time zone; nothing where the viewer's has the same offset."""
    own = ZoneInfo(timezone)
    if all(at.astimezone(own).utcoffset() == at.astimezone(zone).utcoffset() for at in next_at):
        return fill("")
    there = ", ".join(day_and_time(at.astimezone(own), now.astimezone(own)) for at in next_at)
    return fill('<span class="sl-sub">in {timezone}: {there}</span>', timezone=timezone, there=there)


def consequences(plan: SchedulePlan, zone: tzinfo) -> Html:
    """Return the effects of a change on scheduled runs, a sentence each."""
    sentences = [*_of_runs(plan, zone), *_of_skips(plan)]
    if not sentences:
        sentences = [_no_change(plan, zone)]
    return join(sentences, " ")


def _of_runs(plan: SchedulePlan, zone: tzinfo) -> Iterable[Html]:
    for action in plan.actions:
        match action:
            case Begin(run_id):
                yield _about_run("Run {id}, due since {was}, will start.", plan, run_id, zone)
            case Cancel(run_id):
                yield _about_run("Run {id}, scheduled for {was}, will be cancelled.", plan, run_id, zone)
            case Move(run_id, to):
                text = "Run {id} will move from {was} to <b>{to}</b>."
                yield _about_run(text, plan, run_id, zone, to=slot(to, zone, plan.now))
            case Make(at, due):
                planned = "A run will be scheduled for <b>{at}</b>."
                text = "A run for the missed slot of {at} will start." if due else planned
                yield fill(text, at=slot(at, zone, plan.now))


def _about_run(text: str, plan: SchedulePlan, run_id: int, zone: tzinfo, **more: Html) -> Html:
    return fill(text, id=run_id, was=slot(plan.slots[run_id], zone, plan.now), **more)


def _of_skips(plan: SchedulePlan) -> Iterable[Html]:
    skipped = Counter(isinstance(action, Skip) for action in plan.actions)[True]
    if skipped:
        n = "1 slot" if skipped == 1 else f"{skipped:,} slots"
        yield fill("{n} that no scheduler started will be recorded as skipped.", n=n)


def _no_change(plan: SchedulePlan, zone: tzinfo) -> Html:
    if plan.paused:
        return fill("The schedule stays paused: no run is scheduled until it is resumed.")
    if plan.next_at:
        return fill("The next run stays at {at}.", at=slot(plan.next_at[0], zone, plan.now))
    return fill("No run is cancelled: none is scheduled.")
