"""Serves the page: runs Streamlit in a child process, restarts it when it dies, and ends it when asked to stop."""

import logging
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from workers import clock
from workers.monitor.access import login
from workers.processes import signals
from workers.processes.child import Backoff, ChildProcess
from workers.processes.preflight import check_port
from workers.settings import environment, get_settings

log = logging.getLogger(__name__)

_HERE = Path(__file__).parents[1]
_STOP_SECONDS = 3.0
_LOOK_SECONDS = 0.2
_BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
#: A page that was up this long did not die of its start.
_STEADY_SECONDS = 60.0


def serve() -> int:
    """Serve the page at SLUICE_MONITOR_HOST and SLUICE_MONITOR_PORT until SIGTERM or SIGINT.

    It serves the project's own `monitor_app.py` where there is one, and the package's page otherwise. Call it from
    the main thread.

    Returns:
      int: 0.

    Raises:
      ConfigurationError: Others could reach the page and nothing asks who they are, or the port is taken.
    """
    settings = get_settings()
    host, port = settings.monitor_host, settings.monitor_port
    login.check()
    check_port(host, port, "the page", "SLUICE_MONITOR_PORT")
    signals.on_stop()
    backoff = Backoff(_BACKOFF_SECONDS, _STEADY_SECONDS)
    while not clock.stop_requested.is_set():
        began = time.monotonic()
        how = _run_once(host, port)
        if clock.stop_requested.is_set():
            break
        wait = backoff.wait_seconds(time.monotonic() - began)
        log.warning("the page's process %s; it is started again in %.0f s", how, wait)
        clock.sleep(wait)
    return 0


def command(host: str, port: int) -> list[str]:
    """Return the command that serves the page. Its privacy options are here, not in a project's config file."""
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": 1,
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": host,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "viewer",
        "logger.enableRich": "false",
        "logger.level": "warning",
        "logger.hideWelcomeMessage": "true",
        "runner.postScriptGC": "false",  # a full collection after each tick of each session costs more than the tick
        "theme.base": _HERE / "theme.toml",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(_HERE / "entry" / "sluice_monitor.py"), *flags]


def page() -> Path:
    """Return the script that draws the page: the project's own `monitor_app.py`, where it has one."""
    own = Path.cwd() / "monitor_app.py"
    return own if own.is_file() else _HERE / "entry" / "monitor_app.py"


def _run_once(host: str, port: int) -> str:
    """Run Streamlit until it ends, or a stop is requested; return how it ended."""
    process = ChildProcess(
        command(host, port),
        env=environment(FORWARDED_ALLOW_IPS=",".join(get_settings().monitor_trusted_proxies)),  # read by uvicorn
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )
    try:
        _wait_until_ready(process, host, port)
        while process.poll() is None and not clock.sleep(_LOOK_SECONDS):
            pass
    finally:
        process.stop(_STOP_SECONDS)
    return process.how_it_ended()


def _wait_until_ready(process: ChildProcess, host: str, port: int) -> None:
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    address = f"http://{f'[{near}]' if ':' in near else near}:{port}"
    while process.poll() is None:
        if _answers(f"{address}/_stcore/health"):
            log.info("Sluice is ready: %s", address)
            return
        if clock.sleep(_LOOK_SECONDS):
            return


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=1.0) as response:
            return bool(response.status == 200)
    except OSError:
        return False
