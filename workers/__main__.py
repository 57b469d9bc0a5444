"""`python -m workers`."""

from workers.cli.command_line import main

main(name="python -m workers")
