"""Watching a run from a terminal: a bar on a terminal, plain lines otherwise, and the exit code its end stands for."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from workers import clock, database, runs
from workers.stats import RunStats, run_stats
from workers.tables import ENDED, Run, RunStatus

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_DEPENDENCY, EXIT_WITH_FAILURES = 0, 1, 2, 3, 4

_LINE_SECONDS = 10.0
_LOOK_SECONDS = 0.5


class Display:
    """Shows a run's progress on stderr: `with Display() as show: show(run)`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}", markup=True),
            console=self._console,
        )
        self._task = self._bar.add_task("run", total=None, note="")
        self._said_at = 0.0
        self._shown_at = 0.0

    def __enter__(self) -> Callable[[Run], None]:
        if self._console.is_terminal:
            self._bar.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def show(self, run: Run) -> None:
        """Show the run as it is now, at most twice a second."""
        now = time.monotonic()
        ended = run.status in ENDED
        if not ended and now - self._shown_at < _LOOK_SECONDS:
            return
        self._shown_at = now
        stats = run_stats(run)
        if self._console.is_terminal:
            total = stats.total if stats.discovered else None
            self._bar.update(
                self._task,
                description=f"run {run.id} {stats.label}",
                total=total,
                completed=stats.done,
                note=escape(_note(stats)),  # which may hold what an API said
            )
        elif ended or now - self._said_at >= _LINE_SECONDS:
            self._said_at = now
            self._console.print(line(stats), markup=False, highlight=False, soft_wrap=True)


def watch(run_id: int) -> Run:
    """Show a run until it has ended, or the process is asked to stop."""
    with Display() as show:
        while True:
            with database.connection():
                run = runs.get(run_id)
                show(run)
            if run.status in ENDED or clock.sleep(_LOOK_SECONDS):
                return run


def exit_code(run: Run) -> int:
    """Return what a command that waited for this run ends with."""
    if run.status == RunStatus.COMPLETED:
        return EXIT_WITH_FAILURES if run.failed_count else EXIT_DONE
    return EXIT_FAILED


def line(stats: RunStats) -> str:
    """Return one line that says where a run stands."""
    share = f"{stats.percent} %" if stats.percent is not None else "reading the list"
    counts = f"{stats.done:,} of {stats.total or 0:,}"
    note = _note(stats)
    return f"run {stats.id} {stats.label}: {share}, {counts}{', ' + note if note else ''}"


def _note(stats: RunStats) -> str:
    parts = [f"{stats.failed:,} failed"] if stats.failed else []
    if stats.eta_seconds is not None:
        parts.append(f"{stats.per_second:.1f}/s, {duration(stats.eta_seconds)} left")
    parts += [text for text in (stats.why, stats.error_summary if stats.status == RunStatus.FAILED else None) if text]
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as people say them: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
