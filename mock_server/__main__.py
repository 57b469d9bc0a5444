"""Start the mock API from the command line: `python -m mock_server --help`."""

import errno
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from mock_server.algorithms import ALGORITHMS
from mock_server.config import MockConfig
from mock_server.faults import KINDS, parse_fault
from mock_server.headers import STYLES
from mock_server.limits import parse_limits
from mock_server.server import RunningServer, serve_in_thread

Parsed = TypeVar("Parsed")


def _table(meanings: dict[str, str]) -> str:
    return "\n".join(f"  {name:<13} {meaning}" for name, meaning in meanings.items())


HELP = f"""Serve a rate-limited API to import from, and count what it is asked.

\b
  python -m mock_server
  python -m mock_server --items 100 --limits 50/2,200/10 --latency 0.05 --jitter 0.1
  python -m mock_server --fault 500:0.05 --fault reset:0.01 --seed 7
  python -m mock_server --algorithm gcra --burst 10 --headers ratelimit

\b
Then:
  curl -i 'http://127.0.0.1:8001/api/items?page=1&perPage=10'
  curl -i  http://127.0.0.1:8001/api/items/42
  curl -X PUT --json '{{"price": 9.5}}' http://127.0.0.1:8001/api/items/42
  curl     http://127.0.0.1:8001/stats
  curl -X POST http://127.0.0.1:8001/stats/reset

A request is let in when every window has room for it, and is then counted in all of them. One that is refused gets
429 with Retry-After and is counted in none. A caller is an Authorization or X-Api-Key header, or else an address.

\b
Algorithms, how a window counts:
{_table(ALGORITHMS)}

\b
Headers, in which responses state the limits:
{_table(STYLES)}

\b
Faults strike accepted requests only, after they were carried out:
{_table(KINDS)}
"""


def _parsed_by(parse: Callable[[str], Parsed]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make a click callback of a parser, so that its ValueError names the option."""

    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return tuple(map(parse, value)) if isinstance(value, tuple) else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


@click.command(help=HELP)
@click.option("--items", default=1000, show_default=True, help="How many items there are; 0 is allowed.")
@click.option("--limits", default="500/20,2000/100", show_default=True, callback=_parsed_by(parse_limits),
              help="REQUESTS/SECONDS, separated by commas, or none.")  # fmt: skip
@click.option("--algorithm", default="windows", show_default=True, type=click.Choice(list(ALGORITHMS)),
              help="How the windows count.")  # fmt: skip
@click.option("--burst", type=int, help="How many requests gcra lets in at once; the whole limit if not given.")
@click.option("--recount-rejected", is_flag=True, help="Count refused requests too: for the algorithm log.")
@click.option("--headers", default="x-ratelimit", show_default=True, type=click.Choice(list(STYLES)),
              help="The headers that state the limits.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8001, show_default=True, envvar="SLUICE_MOCK_PORT", show_envvar=True,
              help="The port to listen on; 0 takes a free one.")  # fmt: skip
@click.option("--latency", "latency_seconds", default=0.0, show_default=True, metavar="SECONDS",
              help="The delay of every answer. A random part of it passes before the request is counted.")  # fmt: skip
@click.option("--jitter", "jitter_seconds", default=0.0, show_default=True, metavar="SECONDS",
              help="The most that is added to the latency, evenly from 0.")  # fmt: skip
@click.option("--fault", "faults", multiple=True, metavar="KIND:PROBABILITY", callback=_parsed_by(parse_fault),
              help=f"Spoil this share of the answers; repeatable. Kinds: {', '.join(KINDS)}.")  # fmt: skip
@click.option("--timeout-seconds", default=60.0, show_default=True, metavar="SECONDS",
              help="How long the fault timeout holds an answer.")  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Decides the items, the delays and the faults.")
@click.option("--threads", default=32, show_default=True, help="How many requests are answered at once.")
def main(**options: Any) -> None:
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    try:
        config = MockConfig(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with _started(config) as server:
        click.echo(_greeting(server, config))
        # Never set: only a signal ends the wait.
        threading.Event().wait()


def _started(config: MockConfig) -> RunningServer:
    try:
        return serve_in_thread(config)
    except OSError as error:
        raise _CannotListen(_why_not(error, config)) from None


class _CannotListen(click.ClickException):
    """The address is taken or not ours: one sentence, and the exit code of a wrong option."""

    exit_code = 2


def _why_not(error: OSError, config: MockConfig) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {config.port} on {config.host} is in use: "
            f"stop what listens there, or choose another with --port (0 takes a free one)"
        )
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return f"cannot listen on {config.host} port {config.port} ({reason}): choose others with --host and --port"


def _greeting(server: RunningServer, config: MockConfig) -> str:
    limits = ", ".join(map(str, config.limits)) or "no limits"
    how = "" if config.algorithm == "windows" else f"; {config.algorithm}"
    return f"mock API: {server.url}/api/items ({config.items:,} items; {limits}{how})"


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    main(prog_name="python -m mock_server")
