"""`password`: the line for `.env` that sets a password for the page."""

import sys

import click

from workers.cli.exit_codes import EXIT_DONE
from workers.cli.printing import say
from workers.monitor.access.password import SHORTEST, make


@click.command()
@click.option("--viewer", is_flag=True, help="For those who may only look; without it, for operators.")
def password(viewer: bool) -> int:
    """Print the line that sets a password for the page.

    It belongs into .env. It asks twice, and shows nothing; without a terminal it reads one line from stdin. Only a hash
    is printed: nobody can read the password out of it.

    \b
    Examples:
      python -m workers password                      operators may look and act
      python -m workers password --viewer             viewers may only look

    Then start the monitor again: whoever was logged in by the old password logs in anew.
    """
    try:
        kept = make(_typed())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"SLUICE_MONITOR_{'VIEWER_' if viewer else ''}PASSWORD={kept}")
    say("Put this line into .env, in place of one that is there, and start the monitor again.")
    return EXIT_DONE


def _typed() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    asked: str = click.prompt(
        f"Password, {SHORTEST} characters or more", hide_input=True, confirmation_prompt=True, err=True
    )
    return asked
