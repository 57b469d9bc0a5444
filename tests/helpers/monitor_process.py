"""Serve the monitor in a process, and start workers beside it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.machine import ROOT, free_port, wait_until


@contextmanager
def served(folder: Path, **variables: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]", Path]]:
    """Serve the page from a folder, in a process of its own; yields its URL, the process and its log."""
    port = free_port()
    log = Path(variables["SLUICE_DATA_DIR"]) / f"monitor-{port}.log"
    code = (
        "import sys; from workers import log; from workers.monitor.serving.server import serve; "
        "log.set_up(); sys.exit(serve())"
    )
    environment = os.environ | variables | {"SLUICE_MONITOR_PORT": str(port), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: f"Sluice is ready: {url}" in log.read_text(), 20, "the page")
        yield url, process, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def child_of(process: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def run_workers(variables: dict[str, str], *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "workers", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stderr=subprocess.DEVNULL)
