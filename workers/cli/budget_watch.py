"""Budget watch: the sheets of some budgets, once or each second, on a terminal, in a file or as JSON."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from workers import clock
from workers.cli.budget_sheet import as_dict, as_panel, as_text
from workers.errors import DependencyDown, UsageError
from workers.limiter.budget import Budget
from workers.limiter.rate_limiter import BudgetState
from workers.reports import run_stats
from workers.text.plain_text import one_line

_LOOK_SECONDS = 1.0


class Choice:
    """The budgets that were asked for; all there are, where none was named.

    Parameters:
      names(Sequence[str]): Their names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._known: dict[str, Budget] = {}
        self._said: set[str] = set()

    def budgets(self) -> list[Budget]:
        """Return them. One that was found stays, though the run that brought it ends.

        Raises:
          UsageError: There is none of this name; the message lists the known ones.
        """
        found, troubles = run_stats.budgets()
        for trouble in troubles:
            self._complain(trouble)
        self._known = self._known | found
        for name in self._names:
            if name not in self._known:
                listed = ", ".join(sorted(self._known)) or "none: SLUICE_SOURCES names an empty list"
                raise UsageError(f"There is no budget named {name!r}. Known budgets: {listed}.")
        return [self._known[name] for name in self._names or self._known]

    def read(self) -> list[BudgetState]:
        """Return their states.

        Raises:
          DependencyDown: Redis does not answer.
        """
        return [run_stats.look(budget) for budget in self.budgets()]

    def _complain(self, trouble: str) -> None:
        """Say on stderr what is the matter, once."""
        if trouble not in self._said:
            self._said.add(trouble)
            click.echo(one_line(f"Warning: {trouble}"), err=True)


def show(choice: Choice, *, as_json: bool) -> None:
    """Print the budgets as they are now. Errors are those of `Choice.read`."""
    states, now = choice.read(), clock.now()
    if as_json:
        click.echo(json.dumps([as_dict(state, now) for state in states], indent=2))
    elif sys.stdout.isatty():
        Console().print(Group(*[as_panel(state, now) for state in states]))
    else:
        click.echo("\n\n".join(as_text(state, now) for state in states))


def watch(choice: Choice, *, as_json: bool) -> None:
    """Print the budgets each second, in place on a terminal, until the process is asked to stop.

    While Redis is away it says so in their place, and goes on. With JSON it prints an array a line, and says that on
    stderr.
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
    """Give the function that draws states, or the trouble that is in their place."""
    if as_json:
        yield _draw_json
    elif sys.stdout.isatty():
        with Live(console=Console(), auto_refresh=False) as live:
            yield lambda states, trouble: live.update(_panels(states, trouble), refresh=True)
    else:
        yield _draw_text


def _draw_json(states: list[BudgetState], trouble: str) -> None:
    now = clock.now()
    click.echo(one_line(trouble) or json.dumps([as_dict(state, now) for state in states]), err=bool(trouble))


def _panels(states: list[BudgetState], trouble: str) -> RenderableType:
    now = clock.now()
    if trouble:
        return Text(one_line(f"{now:%H:%M:%S} UTC  {trouble}"), style="red")
    return Group(*[as_panel(state, now) for state in states], Text(f"{now:%H:%M:%S} UTC, Ctrl-C ends", style="dim"))


def _draw_text(states: list[BudgetState], trouble: str) -> None:
    now = clock.now()
    blocks = [one_line(trouble)] if trouble else [as_text(state, now) for state in states]
    click.echo("\n\n".join([f"--- {now:%Y-%m-%d %H:%M:%S} UTC", *blocks]) + "\n")
