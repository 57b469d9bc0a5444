"""The table of processes: which live, which were missed, how much each has in work."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from workers.messaging.presence import Process
from workers.monitor.html.formatting import duration, moment, so_many
from workers.monitor.html.icon_label import mark
from workers.monitor.html.markup import Html, fill
from workers.monitor.html.notice import notice
from workers.monitor.html.section import section, table
from workers.version import VERSION

_TITLE = "Processes"
_HEADS = ("State", "Kind", "Host", "Pid", "Threads", "Version", "Since", "Heard of")
_ROW = """
<tr id="{kind}-{host}-{pid}"><td>{state}</td><td>{kind}</td><td>{host}</td><td>{pid}</td><td>{busy}</td>
<td>{version}</td><td>{since}</td><td>{seen}</td></tr>
"""
_AWAY = ("Who lives cannot be told", "Processes leave word in Redis, which does not answer.")
_NOBODY = ("No process has left word", "`python -m workers worker` starts the workers.")


def process_table(found: Sequence[Process] | None, zone: tzinfo, now: datetime) -> Html:
    """Return the processes.

    Parameters:
      found(Sequence[Process] | None): From `presence.processes`; None where Redis cannot tell.
      zone(tzinfo): The viewer's time zone.
      now(datetime): The time of day there is now.
    """
    if not found:
        return section(_TITLE, "", notice("warn", "alert", *(_AWAY if found is None else _NOBODY)))
    rows = (_process(process, zone, now) for process in found)
    return section(_TITLE, _about(found), table(_HEADS, rows))


def _process(process: Process, zone: tzinfo, now: datetime) -> Html:
    return fill(
        _ROW,
        state=_alive(process),
        kind=process.kind,
        host=process.host,
        pid=process.pid,
        busy=_busy(process),
        version=_version(process.version),
        since=moment(process.since, zone, now),
        seen=f"{duration(process.silent_seconds)} ago"
        if process.alive
        else f"not for {duration(process.silent_seconds)}",
    )


def _alive(process: Process) -> Html:
    if process.alive:
        return mark("good", "check", "alive")
    return mark("bad", "cross", "gone")


def _busy(process: Process) -> Html:
    if not process.threads:
        return fill('<span class="sl-dim">–</span>')
    if process.busy_lanes is None or not process.alive:
        return fill("{threads}", threads=process.threads)
    return fill("{busy} of {threads} busy", busy=process.busy_lanes, threads=process.threads)


def _version(version: str) -> Html:
    if version == VERSION:
        return fill("{version}", version=version)
    return mark("warn", "alert", f"{version}, not {VERSION}")


def _about(found: Sequence[Process]) -> str:
    alive = sum(process.alive for process in found)
    gone = len(found) - alive
    hosts = len({process.host for process in found if process.alive})
    lost = f"; {gone} gone within the last ten minutes: ended by force, or hanging" if gone else ""
    return f"{alive} alive on {so_many(hosts, 'host')}{lost}"
