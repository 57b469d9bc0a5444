"""The table of processes: alive or gone, by their heartbeats, and how busy each is."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from workers.messaging.process_heartbeat import Process
from workers.monitor.html.formatting import moment, plural
from workers.monitor.html.icon_label import icon_label
from workers.monitor.html.markup import Html, fill
from workers.monitor.html.notice import notice
from workers.monitor.html.section import section, table
from workers.text.durations import duration
from workers.version import VERSION

_TITLE = "Processes"
_HEADS = ("State", "Kind", "Host", "PID", "Threads", "Version", "Since", "Last heartbeat")
_ROW = """
<tr id="{kind}-{host}-{pid}" data-alive="{alive}"><td>{state}</td><td>{kind}</td><td>{host}</td><td>{pid}</td>
<td>{busy}</td><td>{version}</td><td>{since}</td><td>{seen}</td></tr>
"""
_UNKNOWN = ("Processes unknown", "Their heartbeats are in Redis, which does not answer.")
_NONE = ("No process is running", "`python -m workers worker` starts the workers.")


def process_table(processes: Sequence[Process] | None, zone: tzinfo, now: datetime) -> Html:
    """Return the processes.

    Parameters:
      processes(Sequence[Process] | None): From `process_heartbeat.processes`; None where Redis does not answer.
      zone(tzinfo): The viewer's time zone.
      now(datetime): The current time.
    """
    if not processes:
        return section(_TITLE, "", notice("warn", "alert", *(_UNKNOWN if processes is None else _NONE)))
    rows = (_process(process, zone, now) for process in processes)
    return section(_TITLE, _about(processes), table(_HEADS, rows))


def _process(process: Process, zone: tzinfo, now: datetime) -> Html:
    return fill(
        _ROW,
        alive="yes" if process.alive else "no",
        state=_alive(process),
        kind=process.kind,
        host=process.host,
        pid=process.pid,
        busy=_busy(process),
        version=_version(process.version),
        since=moment(process.since, zone, now),
        seen=f"{duration(process.silent_seconds)} ago"
        if process.alive
        else f"none for {duration(process.silent_seconds)}",
    )


def _alive(process: Process) -> Html:
    if process.alive:
        return icon_label("good", "check", "alive")
    return icon_label("bad", "cross", "gone")


def _busy(process: Process) -> Html:
    if not process.threads:
        return fill('<span class="sl-dim">–</span>')
    if process.busy_lanes is None or not process.alive:
        return fill("{threads}", threads=process.threads)
    return fill("{busy} of {threads} busy", busy=process.busy_lanes, threads=process.threads)


def _version(version: str) -> Html:
    if version == VERSION:
        return fill("{version}", version=version)
    return icon_label("warn", "alert", f"{version}, not {VERSION}")


def _about(processes: Sequence[Process]) -> str:
    alive = sum(process.alive for process in processes)
    gone = len(processes) - alive
    hosts = len({process.host for process in processes if process.alive})
    lost = f"; {gone} gone in the last ten minutes: killed or hanging" if gone else ""
    return f"{alive} alive on {plural(hosts, 'host')}{lost}"
