"""The command `password`: prints the .env line that sets a password for the page, as a hash."""

import sys

import click

from workers.cli.exit_codes import EXIT_DONE
from workers.cli.printing import say
from workers.monitor.access.password import SHORTEST, make


@click.command()
@click.option("--viewer", is_flag=True, help="For viewers, who can only look; default: for operators.")
def password(viewer: bool) -> int:
    """Print the setting with a password for the page, as a hash.

    It asks for the password twice, without showing it; without a terminal it reads one line from stdin. The password
    cannot be read from the hash.

    \b
    Examples:
      python -m workers password                      operators may look and act
      python -m workers password --viewer             viewers may only look

    Next: put the line into .env and restart the monitor. Those who logged in with the old password log in again.
    """
    try:
        kept = make(_typed())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"SLUICE_MONITOR_{'VIEWER_' if viewer else ''}PASSWORD={kept}")
    say("Put this line into .env, replacing an older one, and restart the monitor.")
    return EXIT_DONE


def _typed() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    asked: str = click.prompt(
        f"Password, {SHORTEST} characters or more", hide_input=True, confirmation_prompt=True, err=True
    )
    return asked
