"""The command line: a file for each command, and what the commands share."""

from workers.cli.command_line import main

__all__ = ["main"]
