"""The command `completion`: prints the script with which a shell completes commands, sources and runs."""

from shutil import which

import click
from click.shell_completion import get_completion_class

from workers.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from workers.cli.printing import say

#: The start-up file of each shell, and the line to add there.
_LINES = {
    "bash": ("~/.bashrc", 'eval "$(sluice completion bash)"'),
    "zsh": ("~/.zshrc", 'eval "$(sluice completion zsh)"'),
    "fish": ("~/.config/fish/completions/sluice.fish", "sluice completion fish | source"),
}


@click.command()
@click.argument("shell", type=click.Choice(list(_LINES)), default="bash")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script for shell completion of commands, sources and runs.

    For the command `sluice`, in bash (4.4 or newer), zsh or fish. `sluice` must be on PATH: `pip install .` in Sluice's
    folder installs it in the venv, and an active venv is on PATH.

    \b
    Examples: the line for
      ~/.bashrc                                 eval "$(sluice completion bash)"
      ~/.zshrc                                  eval "$(sluice completion zsh)"
      ~/.config/fish/completions/sluice.fish    sluice completion fish | source
    """
    completer = get_completion_class(shell)
    if completer is None:
        return EXIT_FAILED
    click.echo(completer(ctx.find_root().command, {}, "sluice", "_SLUICE_COMPLETE").source())
    place, line = _LINES[shell]
    say(f"# for every new shell, add this line to {place}: {line}")
    if which("sluice") is None:
        say("# it completes `sluice`, which is not on PATH: run `pip install .` in Sluice's folder")
    return EXIT_DONE
