"""The command `budgets`: prints the use of each API's limits and how many requests wait, once or each second."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from workers import clock
from workers.cli.budget_view import as_dict, as_panel, as_text
from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import Door, pass_door
from workers.cli.printing import AS_JSON, say
from workers.control.relearn import relearn
from workers.errors import DependencyDown, UsageError
from workers.limiter.budget import Budget
from workers.limiter.state import BudgetState
from workers.processes import signals
from workers.reports.budget_states import budget_state, known_budgets
from workers.text.plain_text import one_line

_LOOK_SECONDS = 1.0


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--watch", is_flag=True, help="Print again each second, until Ctrl-C.")
@click.option(
    "--relearn",
    "forget",
    is_flag=True,
    help="First forget what the API taught the budgets NAME: pacing, longer windows, limits from its headers.",
)
@AS_JSON
@pass_door
def budgets(door: Door, names: tuple[str, ...], *, watch: bool, forget: bool, as_json: bool) -> int:
    """Show how much of each API's limits is used, and how many requests wait.

    All budgets, or those named: used permits, when each opens again, and why it is closed.

    \b
    Examples:
      python -m workers budgets --watch               second by second
      python -m workers budgets rate-test --relearn   the API was repaired: use the configured limits again
    """
    choice = Choice(names)
    if forget:
        _relearn(door, names, choice)
    if not watch:
        _print(choice, as_json=as_json)
        return EXIT_DONE
    signals.on_stop()
    _watch(choice, as_json=as_json)
    return signals.exit_code()


def _relearn(door: Door, names: tuple[str, ...], choice: "Choice") -> None:
    if not names:
        raise click.UsageError("--relearn needs the NAME of a budget: `python -m workers budgets` lists them")
    for budget in choice.budgets():
        with door.acting() as by:
            known = relearn(budget, who=by["who"])
        unknown = "" if known else " in the database; Redis has no state of it: repeat this when it is in use"
        say(f"{budget.name}: reset to its configuration{unknown}")


class Choice:
    """The budgets that were asked for; all of them, where none was named.

    Parameters:
      names(Sequence[str]): Their names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._known: dict[str, Budget] = {}
        self._warned: set[str] = set()

    def budgets(self) -> list[Budget]:
        """Return the budgets. One that only an active run uses stays in the list when that run ends.

        Raises:
          UsageError: A name is none of a budget; the message lists the known ones.
        """
        found, warnings = known_budgets()
        for warning in warnings:
            self._warn_once(warning)
        self._known = self._known | found
        for name in self._names:
            if name not in self._known:
                listed = ", ".join(sorted(self._known)) or "none, because SLUICE_SOURCES names an empty list"
                raise UsageError(f"There is no budget named {name!r}. Known budgets: {listed}.")
        return [self._known[name] for name in self._names or self._known]

    def read(self) -> list[BudgetState]:
        """Return the states of the budgets.

        Raises:
          DependencyDown: Redis does not answer.
        """
        return [budget_state(budget) for budget in self.budgets()]

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            click.echo(one_line(f"Warning: {warning}"), err=True)


def _print(choice: Choice, *, as_json: bool) -> None:
    """Print the budgets as they are now. Errors are those of `Choice.read`."""
    states, now = choice.read(), clock.now()
    if as_json:
        click.echo(json.dumps([as_dict(state, now) for state in states], indent=2))
    elif sys.stdout.isatty():
        Console().print(Group(*[as_panel(state, now) for state in states]))
    else:
        click.echo("\n\n".join(as_text(state, now) for state in states))


def _watch(choice: Choice, *, as_json: bool) -> None:
    """Print the budgets each second until the process is asked to stop; on a terminal, in place.

    While Redis is away, it prints the outage instead and keeps asking. With JSON each line is an array, and the outage
    goes to stderr.
    """
    with _screen(as_json=as_json) as draw:
        while True:
            try:
                draw(choice.read(), "")
            except DependencyDown as error:
                draw([], f"{error}. Asking again each second.")
            if clock.sleep(_LOOK_SECONDS):
                return


Draw = Callable[[list[BudgetState], str], None]


@contextmanager
def _screen(*, as_json: bool) -> Iterator[Draw]:
    """Yield the function that draws the states, or the outage in their place."""
    if as_json:
        yield _draw_json
    elif sys.stdout.isatty():
        with Live(console=Console(), auto_refresh=False) as live:
            yield lambda states, outage: live.update(_panels(states, outage), refresh=True)
    else:
        yield _draw_text


def _draw_json(states: list[BudgetState], outage: str) -> None:
    now = clock.now()
    click.echo(one_line(outage) or json.dumps([as_dict(state, now) for state in states]), err=bool(outage))


def _panels(states: list[BudgetState], outage: str) -> RenderableType:
    now = clock.now()
    if outage:
        return Text(one_line(f"{now:%H:%M:%S} UTC  {outage}"), style="red")
    return Group(*[as_panel(state, now) for state in states], Text(f"{now:%H:%M:%S} UTC, Ctrl-C ends", style="dim"))


def _draw_text(states: list[BudgetState], outage: str) -> None:
    now = clock.now()
    blocks = [one_line(outage)] if outage else [as_text(state, now) for state in states]
    click.echo("\n\n".join([f"--- {now:%Y-%m-%d %H:%M:%S} UTC", *blocks]) + "\n")
