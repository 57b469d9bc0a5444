"""`plan`: what a run would come to, from one list page."""

import dataclasses
from collections.abc import Iterator
from datetime import timedelta

import click

from workers import clock
from workers.cli.arguments import SOURCE, TENANT
from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import tables
from workers.cli.printing import AS_JSON, answer, pairs, show
from workers.control import plan as planning
from workers.control.plan import Plan
from workers.errors import RetryableError
from workers.text.durations import duration

#: So many items that would fail are named.
_NAMED = 3


@click.command()
@SOURCE
@TENANT
@AS_JSON
def plan(source: str | None, *, tenant: str | None, as_json: bool) -> int:
    """Tell what a run of SOURCE would come to, from one list page.

    It asks the API once, with a permit, and imports nothing. What it could not know stands at the end.

    \b
    Examples:
      python -m workers plan
      python -m workers plan items --json

    Next: `run SOURCE` does it; `budgets` shows what its API's limits have left.
    """
    with tables():
        made = _plan(source, tenant)
    if as_json:
        answer(dataclasses.asdict(made))
        return EXIT_DONE
    show(pairs(_told(made)))
    return EXIT_DONE


def _plan(source: str | None, tenant: str | None) -> Plan:
    try:
        return planning.plan(source, tenant=tenant)
    except RetryableError as error:
        hint = ": is it started?" if str(error).endswith("refuses connections") else ""
        raise RetryableError(f"{error}{hint}") from error


def _told(made: Plan) -> Iterator[tuple[str, object]]:
    whom = f" for {made.tenant}" if made.tenant else ""
    yield "source", f"{made.source}{whom}, from {made.api}"
    yield "to do", _to_do(made)
    yield "takes", _takes(made)
    yield "decides", _decides(made)
    yield "limits", ", ".join(made.limits) + (f"; {made.slowed}" if made.slowed else "")
    if made.starts_in_seconds:
        opens = clock.now() + timedelta(seconds=made.starts_in_seconds)
        yield "begins", f"in {duration(made.starts_in_seconds)}, at {opens:%H:%M:%S} UTC: {made.why_closed}"
    for what, reasons in (("would fail", made.refused), ("skipped", made.skipped)):
        if reasons:
            yield what, _of_the_page(made, reasons)
    for title, sentences in (("note", made.remarks), ("not known", made.unknowns)):
        yield from zip([title, *[""] * len(sentences)], sentences, strict=False)


def _to_do(made: Plan) -> str:
    if made.items is None:
        return f"at least {made.items_on_page:,} items, {made.per_page:,} a list page; how many is not known"
    return f"{made.items:,} items, {made.pages:,} list pages, {made.requests:,} requests"


def _takes(made: Plan) -> str:
    if made.seconds is None:
        return f"about {duration(made.seconds_per_1000)} for each 1,000 items"
    return f"about {duration(made.seconds)}; by the limits alone {duration(made.floor_seconds or 0.0)}"


def _decides(made: Plan) -> str:
    took = f"{made.answer_seconds:.2f} s"
    if made.slowest == "limits":
        return "the limits, not the lanes"
    if made.slowest == "list":
        return f"the list: its pages come one after another, and each takes about {took}"
    if made.strands < made.lanes:
        return f"the threads: {made.strands} for {made.lanes} lanes, and each answer takes about {took}"
    return f"the lanes: {made.lanes} of them, and each answer takes about {took}"


def _of_the_page(made: Plan, reasons: dict[str, str]) -> str:
    named = "; ".join(dict.fromkeys(list(reasons.values())[:_NAMED]))
    return f"{len(reasons):,} of the {made.items_on_page:,} items on this page: {named}"
