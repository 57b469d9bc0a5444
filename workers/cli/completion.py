"""`completion`: what lets a shell complete commands, sources and runs."""

from shutil import which

import click
from click.shell_completion import get_completion_class

from workers.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from workers.cli.printing import say

#: Where each shell looks, and the line that belongs there.
_LINES = {
    "bash": ("~/.bashrc", 'eval "$(sluice completion bash)"'),
    "zsh": ("~/.zshrc", 'eval "$(sluice completion zsh)"'),
    "fish": ("~/.config/fish/completions/sluice.fish", "sluice completion fish | source"),
}


@click.command()
@click.argument("shell", type=click.Choice(list(_LINES)), default="bash")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print what lets your shell complete commands, sources and runs.

    For the command `sluice`, in bash (4.4 or newer), zsh or fish. It must be on PATH: `pip install .` in Sluice's
    folder puts it into the venv, and an active venv is on PATH.

    \b
    Examples: a line for
      ~/.bashrc                                 eval "$(sluice completion bash)"
      ~/.zshrc                                  eval "$(sluice completion zsh)"
      ~/.config/fish/completions/sluice.fish    sluice completion fish | source
    """
    completer = get_completion_class(shell)
    if completer is None:
        return EXIT_FAILED
    click.echo(completer(ctx.find_root().command, {}, "sluice", "_SLUICE_COMPLETE").source())
    place, line = _LINES[shell]
    say(f"# to have it in every shell, put this into {place}: {line}")
    if which("sluice") is None:
        say("# it completes `sluice`, which is not on PATH: `pip install .` in Sluice's folder puts it there")
    return EXIT_DONE
