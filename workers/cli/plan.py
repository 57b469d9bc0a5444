"""The command `plan`: estimates how long a run would take, from one list page."""

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
from workers.control.estimate import Plan
from workers.errors import RetryableError
from workers.text.durations import duration

#: How many reasons are listed.
_NAMED = 3


@click.command()
@SOURCE
@TENANT
@AS_JSON
def plan(source: str | None, *, tenant: str | None, as_json: bool) -> int:
    """Estimate how long a run would take, from one list page.

    It sends the API one request, with a permit, and imports nothing. The last rows list what is unknown, and what it
    assumes instead.

    \b
    Examples:
      python -m workers plan
      python -m workers plan items --json

    Next: `run SOURCE` starts the run; `budgets` shows how much of its API's limits is used.
    """
    with tables():
        made = _plan(source, tenant)
    if as_json:
        answer(dataclasses.asdict(made))
        return EXIT_DONE
    show(pairs(_rows(made)))
    return EXIT_DONE


def _plan(source: str | None, tenant: str | None) -> Plan:
    try:
        return planning.plan(source, tenant=tenant)
    except RetryableError as error:
        hint = ": is it started?" if _is_refused_connection(error) else ""
        raise RetryableError(f"{error}{hint}") from error


def _is_refused_connection(error: BaseException | None) -> bool:
    """Whether a refused connection led to an error."""
    while error and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def _rows(made: Plan) -> Iterator[tuple[str, object]]:
    whom = f" for {made.tenant}" if made.tenant else ""
    yield "source", f"{made.source}{whom}, from {made.api}"
    yield "size", _size(made)
    yield "duration", _duration(made)
    yield "limited by", _limited_by(made)
    yield "limits", ", ".join(made.limits) + (f"; {made.slowed}" if made.slowed else "")
    if made.starts_in_seconds:
        opens = clock.now() + timedelta(seconds=made.starts_in_seconds)
        yield "starts", f"in {duration(made.starts_in_seconds)}, at {opens:%H:%M:%S} UTC: {made.why_closed}"
    for what, reasons in (("would fail", made.refused), ("skipped", made.skipped)):
        if reasons:
            yield what, _reasons(made, reasons)
    for title, sentences in (("note", made.remarks), ("unknown", made.unknowns)):
        yield from zip([title, *[""] * len(sentences)], sentences, strict=False)


def _size(made: Plan) -> str:
    if made.items is None:
        return f"at least {made.items_on_page:,} items, {made.per_page:,} on each list page; the total is unknown"
    return f"{made.items:,} items, {made.pages:,} list pages, {made.requests:,} requests"


def _duration(made: Plan) -> str:
    if made.seconds is None:
        return f"about {duration(made.seconds_per_1000)} for each 1,000 items"
    return f"about {duration(made.seconds)}; the rate limits alone require {duration(made.floor_seconds or 0.0)}"


def _limited_by(made: Plan) -> str:
    took = f"{made.answer_seconds:.2f} s"
    if made.slowest == "limits":
        return "the rate limits: more lanes would not help"
    if made.slowest == "list":
        return f"the list: its pages are read one after another, and each response takes about {took}"
    if made.strands < made.lanes:
        return f"the worker threads: {made.strands} for {made.lanes} lanes, and each response takes about {took}"
    return f"the number of lanes, {made.lanes}: each response takes about {took}"


def _reasons(made: Plan, reasons: dict[str, str]) -> str:
    named = "; ".join(dict.fromkeys(list(reasons.values())[:_NAMED]))
    return f"{len(reasons):,} of the {made.items_on_page:,} items on this page: {named}"
