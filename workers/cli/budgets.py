"""`budgets`: what each API's limits have left, and what waits for them."""

import click

from workers.cli import budget_watch
from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import me, tables
from workers.cli.printing import AS_JSON, say
from workers.control.relearn import relearn
from workers.processes import signals


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--watch", is_flag=True, help="Look again each second, until Ctrl-C.")
@click.option(
    "--relearn",
    "forget",
    is_flag=True,
    help="First forget what the API taught the budgets NAME: the profile paced, longer windows, limits it named.",
)
@AS_JSON
def budgets(names: tuple[str, ...], *, watch: bool, forget: bool, as_json: bool) -> int:
    """Show what each API's limits have left, and what waits for them.

    All budgets, or those of NAME: what they have given, until when they are closed, and why.

    \b
    Examples:
      python -m workers budgets --watch               second by second
      python -m workers budgets rate-test --relearn   the API was mended: as configured again
    """
    choice = budget_watch.Choice(names)
    if forget:
        _relearn(names, choice)
    if not watch:
        budget_watch.show(choice, as_json=as_json)
        return EXIT_DONE
    signals.on_stop()
    budget_watch.watch(choice, as_json=as_json)
    return signals.exit_code()


def _relearn(names: tuple[str, ...], choice: budget_watch.Choice) -> None:
    if not names:
        raise click.UsageError("--relearn needs the NAME of a budget: `python -m workers budgets` lists them")
    for budget in choice.budgets():
        with tables():
            known = relearn(budget, who=me())
        unknown = "" if known else ", says the database; Redis was emptied or started: do it again once it is used"
        say(f"{budget.name}: as configured again{unknown}")
