"""The card of a budget: what is used of its windows, why it is closed and until when, who uses it, what it learned."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

from workers.limiter.state import BudgetState, Note
from workers.monitor.html import links
from workers.monitor.html.formatting import count, duration, moment, pace, sentence, so_many
from workers.monitor.html.gauge import gauges
from workers.monitor.html.markup import Html, fill, join
from workers.records.tables import RunStatus
from workers.reports import budget_text
from workers.reports.budgets import BudgetUse, User

_CARD = """
<section class="sl-card sl-budget" aria-label="budget {name}">
  <header class="sl-head"><span class="sl-badge sl-small sl-{tone}"><i class="sl-icon sl-i-{shape}"></i>{word}</span>
    <h2>{name}</h2><span class="sl-dim">{sources}</span></header>
  <p class="sl-line sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{news}</span></p>{slowed}
  {gauges}
  <dl class="sl-tiles sl-tiles-wide">{tiles}</dl>
  <p class="sl-budget-users">{users}</p>
  {notes}{act}
</section>
"""
_TILE = '<div><dt>{title}</dt><dd>{figure}</dd><dd class="sl-note">{note}</dd></div>'
_NOTES = '<details class="sl-budget-notes"><summary>{title}</summary><ol>{lines}</ol></details>'

UNKNOWN, UNUSED, PAUSED, CLOSED, OPEN = "cannot be told", "not in use", "paused", "waits", "open"
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
      act(Html): A button for what may be done with it; may be empty.
    """
    word = standing(use, now)
    shape, tone = _LOOKS[word]
    return fill(
        _CARD,
        name=use.name,
        tone=tone,
        shape=shape,
        word=word,
        sources=_sources(use.sources),
        news=_news(use.state, zone, now),
        slowed=_slowed(use.state),
        gauges=gauges(use.state) if use.state else _configured(use),
        tiles=join(_tiles(use)),
        users=_users(use.users),
        notes=_notes(use.state.notes, zone, now) if use.state else "",
        act=act,
    )


def standing(use: BudgetUse, now: datetime) -> str:
    """Return how a budget stands, in a word or two."""
    state = use.state
    if state is None:
        return UNKNOWN
    if not state.known:
        return UNUSED
    if state.paused_for_seconds or state.canary:
        return PAUSED
    return CLOSED if budget_text.why_closed(state, now) else OPEN


def _news(state: BudgetState | None, zone: tzinfo, now: datetime) -> Html:
    """Say why nothing may be sent, and until when; or that something may."""
    if state is None:
        return fill("what is used of it stands in Redis, which does not answer")
    if state.paused_for_seconds:
        until = moment(_to_the_second(now, state.paused_for_seconds), zone, now)
        left = duration(state.paused_for_seconds)
        return fill("{why}: paused until {until}, for {left} more", why=state.paused_why, until=until, left=left)
    if not state.known:
        return fill("not used since Redis was last empty, or started")
    return sentence(budget_text.why_closed(state, now) or "requests may be sent", zone, now)


def _slowed(state: BudgetState | None) -> Html:
    """Say what makes it slower than configured: that stays true while the news change."""
    text = budget_text.slowed(state) if state else ""
    if not text:
        return fill("")
    return fill('<p class="sl-slowed"><i class="sl-icon sl-i-alert"></i><span>{text}</span></p>', text=text)


def _configured(use: BudgetUse) -> Html:
    limits = " and ".join(str(limit) for limit in use.limits)
    share = f", of which {use.share:.0%} are ours" if use.share < 1 else ""
    return fill('<p class="sl-dim">configured as {limits}{share}</p>', limits=limits, share=share)


# --- figures ----------------------------------------------------------------------------------------------------------


def _tiles(use: BudgetUse) -> list[Html]:
    state = use.state
    allows = _tile("Its windows allow", f"{pace(use.per_second)} /s", f"in the long run: {use.decided_by}")
    if state is None or not state.known:
        return [allows]
    waits = f"{count(state.waiting)} wait for a permit" if state.waiting else "nobody waits"
    asleep = f"and {duration(state.sleeping_seconds)} just now" if state.sleeping_seconds >= 1 else "in all sleeps"
    others = f"{count(state.foreign)} more by others" if state.foreign else "requests let through"
    return [
        allows,
        _tile("In flight", count(state.in_flight), waits),
        _tile("Refusals", so_many(state.hits, "hit"), f"{so_many(state.sleeps, 'sleep')} avoided one"),
        _tile("Slept", duration(state.slept_seconds), asleep),
        _tile("Granted", count(state.granted), others),
        _tile(
            "Profile", state.profile, "a steady rate" if state.profile == "paced" else "as fast as the windows allow"
        ),
    ]


def _tile(title: str, figure: str, note: str) -> Html:
    return fill(_TILE, title=title, figure=figure, note=note)


# --- who uses it, and what was decided for it -------------------------------------------------------------------------


def _sources(names: Sequence[str]) -> str:
    if not names:
        return "of a tenant"
    return f"source{'' if len(names) == 1 else 's'} {', '.join(names)}"


def _users(users: Sequence[User] | None) -> Html:
    if users is None:
        return fill('<span class="sl-dim">which runs use it stands in the database, which does not answer</span>')
    if not users:
        return fill('<span class="sl-dim">no active run uses it</span>')
    return fill("in use by {links}", links=join(map(_user, users), ", "))


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
    title = f"what was decided for it: {so_many(len(notes), 'note')}, the newest first"
    return fill(_NOTES, title=title, lines=join(lines))


def _to_the_second(now: datetime, in_seconds: float) -> datetime:
    """Return when that is, rounded: told again a moment later, it is still the same."""
    return (now + timedelta(seconds=in_seconds + 0.5)).replace(microsecond=0)
