"""The card of a budget: used requests by window, why it is closed and until when, its runs, and its decisions."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

from workers.limiter.state import BudgetState, Note
from workers.monitor.html import links
from workers.monitor.html.formatting import count, moment, pace, plural, sentence
from workers.monitor.html.gauge import gauges
from workers.monitor.html.markup import Html, fill, join
from workers.records.tables import RunStatus
from workers.reports import budget_text
from workers.reports.budgets import BudgetUse, User
from workers.text.durations import duration

_CARD = """
<section class="sl-card sl-budget" aria-label="budget {name}" data-state="{word}">
  <header class="sl-head"><span class="sl-badge sl-small sl-{tone}"><i class="sl-icon sl-i-{shape}"></i>{word}</span>
    <h2>{name}</h2><span class="sl-dim">{sources}</span></header>
  <p class="sl-line sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{reason}</span></p>{slowed}
  {gauges}
  <dl class="sl-tiles sl-tiles-wide">{tiles}</dl>
  <p class="sl-budget-users">{users}</p>
  {notes}{act}
</section>
"""
_TILE = '<div><dt>{title}</dt><dd>{figure}</dd><dd class="sl-note">{note}</dd></div>'
_NOTES = '<details class="sl-budget-notes"><summary>{title}</summary><ol>{lines}</ol></details>'

UNKNOWN, UNUSED, PAUSED, CLOSED, OPEN = "unknown", "not used yet", "paused", "waiting", "open"
#: The icon and the tone beside each word.
_LOOKS = {
    UNKNOWN: ("alert", "warn"),
    UNUSED: ("clock", "calm"),
    PAUSED: ("pause", "warn"),
    CLOSED: ("wait", "warn"),
    OPEN: ("check", "good"),
}


def budget_card(use: BudgetUse, zone: tzinfo, now: datetime, act: Html) -> Html:
    """Return one budget.

    Parameters:
      use(BudgetUse): The budget.
      zone(tzinfo): The viewer's time zone.
      now(datetime): When it was read.
      act(Html): A button for what can be done with it; can be empty.
    """
    word = state_word(use, now)
    shape, tone = _LOOKS[word]
    return fill(
        _CARD,
        name=use.name,
        tone=tone,
        shape=shape,
        word=word,
        sources=_sources(use.sources),
        reason=_reason(use.state, zone, now),
        slowed=_slowed(use.state),
        gauges=gauges(use.state) if use.state else _configured(use),
        tiles=join(_tiles(use)),
        users=_users(use.users),
        notes=_notes(use.state.notes, zone, now) if use.state else "",
        act=act,
    )


def state_word(use: BudgetUse, now: datetime) -> str:
    """Return the state of a budget in a word or two: one of UNKNOWN, UNUSED, PAUSED, CLOSED, OPEN."""
    state = use.state
    if state is None:
        return UNKNOWN
    if not state.known:
        return UNUSED
    if state.paused_for_seconds or state.canary:
        return PAUSED
    return CLOSED if budget_text.why_closed(state, now) else OPEN


def _reason(state: BudgetState | None, zone: tzinfo, now: datetime) -> Html:
    """Say why no request can be sent, and until when; or that requests can be sent."""
    if state is None:
        return fill("usage is not available: Redis does not answer")
    if state.paused_for_seconds:
        until = moment(_to_the_second(now, state.paused_for_seconds), zone, now)
        left = duration(state.paused_for_seconds)
        return fill("{why}: paused until {until}, {left} left", why=state.paused_why, until=until, left=left)
    if not state.known:
        return fill("no request since Redis was started or emptied")
    return sentence(budget_text.why_closed(state, now) or "requests can be sent", zone, now)


def _slowed(state: BudgetState | None) -> Html:
    """Say what makes it slower than configured: this changes less often than the line above."""
    text = budget_text.slowed(state) if state else ""
    if not text:
        return fill("")
    return fill('<p class="sl-slowed"><i class="sl-icon sl-i-alert"></i><span>{text}</span></p>', text=text)


def _configured(use: BudgetUse) -> Html:
    limits = " and ".join(str(limit) for limit in use.limits)
    share = f"; our share is {100 * use.share:.0f} %" if use.share < 1 else ""
    return fill('<p class="sl-dim">configured as {limits}{share}</p>', limits=limits, share=share)


# --- figures ----------------------------------------------------------------------------------------------------------


def _tiles(use: BudgetUse) -> list[Html]:
    state = use.state
    allows = _tile("Allowed rate", f"{pace(use.per_second)} /s", f"long-term average: {use.decided_by}")
    if state is None or not state.known:
        return [allows]
    waiting = f"{count(state.waiting)} waiting for a permit" if state.waiting else "none waiting for a permit"
    now = state.sleeping_seconds
    current = f"; the current one {duration(now)}" if now >= 1 else ""
    others = f"{count(state.foreign)} more requests by others" if state.foreign else "one for each request"
    return [
        allows,
        _tile("In flight", count(state.in_flight), waiting),
        _tile("Rate-limit hits (429)", count(state.hits), "refused by the API"),
        _tile("Planned waits", count(state.sleeps), f"{duration(state.slept_seconds)} in total{current}"),
        _tile("Permits granted", count(state.granted), others),
        _tile(
            "Profile", state.profile, "a steady rate" if state.profile == "paced" else "as fast as the windows allow"
        ),
    ]


def _tile(title: str, figure: str, note: str) -> Html:
    return fill(_TILE, title=title, figure=figure, note=note)


# --- its runs, and the decisions about it -----------------------------------------------------------------------------


def _sources(names: Sequence[str]) -> str:
    if not names:
        return "of a tenant"
    return f"source{'' if len(names) == 1 else 's'} {', '.join(names)}"


def _users(users: Sequence[User] | None) -> Html:
    if users is None:
        return fill('<span class="sl-dim">its runs are not available: the database does not answer</span>')
    if not users:
        return fill('<span class="sl-dim">no active run uses it</span>')
    return fill("used by {links}", links=join(map(_user, users), ", "))


def _user(user: User) -> Html:
    return fill(
        '<a href="{address}" data-page>run {id}</a> of {source}{tenant}{paused}',
        address=links.to(links.RUN, id=user.run_id),
        id=user.run_id,
        source=user.source,
        tenant=f" for {user.tenant}" if user.tenant else "",
        paused=" (paused)" if user.status == RunStatus.PAUSED else "",
    )


def _notes(notes: Sequence[Note], zone: tzinfo, now: datetime) -> Html:
    if not notes:
        return fill("")
    line = "<li>{at}<span>{text}</span></li>"
    lines = [fill(line, at=moment(_to_the_second(now, -note.seconds_ago), zone, now), text=note.text) for note in notes]
    title = f"Decisions: {plural(len(notes), 'note')}, newest first"
    return fill(_NOTES, title=title, lines=join(lines))


def _to_the_second(now: datetime, in_seconds: float) -> datetime:
    """Return the time, rounded: computed again a moment later, it is the same."""
    return (now + timedelta(seconds=in_seconds + 0.5)).replace(microsecond=0)
