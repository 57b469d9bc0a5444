"""Shows the progress of a run while it is watched: a bar on a terminal, else a line every ten seconds."""

import time
from typing import Any

from peewee import PeeweeException
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from workers import clock
from workers.connections import database
from workers.errors import DependencyDown
from workers.records import runs
from workers.records.tables import ENDED, Run, RunStatus
from workers.reports.run_stats import RunStats, run_stats
from workers.text.durations import duration
from workers.text.plain_text import one_line

_LINE_SECONDS = 10.0
_BAR_WIDTH, _SPINNER_WIDTH, _LEAST_NOTE = 40, 3, 16
#: How many characters of a note's end are kept if it has no semicolon.
_TAIL = 16
_LOOK_SECONDS = 0.5
#: How long a database that does not answer is asked again: longer than a restart takes, shorter than a night.
_PATIENCE_SECONDS = 600.0


class Display:
    """Shows a run's progress on stderr: `with Display() as display: display.show(run)`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            _Bar(bar_width=_BAR_WIDTH),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}", markup=True),
            console=self._console,
        )
        self._task = self._bar.add_task("run", total=None, note="", narrow=False)
        self._printed_at = 0.0
        self._troubled = False
        self._shown_at = 0.0

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._bar.start()
        return self

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
        self._troubled = False
        stats = run_stats(run)
        if self._console.is_terminal:
            self._draw(stats)
        elif ended or now - self._printed_at >= _LINE_SECONDS:
            self._print(line(stats))

    def warn(self, trouble: str) -> None:
        """Show why the run cannot be read: beside the bar, or every ten seconds in a line of its own."""
        if self._console.is_terminal:
            self._note(trouble)
        elif not self._troubled or time.monotonic() - self._printed_at >= _LINE_SECONDS:
            self._print(trouble)
        self._troubled = True

    def _draw(self, stats: RunStats) -> None:
        total = stats.total if stats.discovered else None
        description = f"run {stats.id} {stats.label}"
        self._bar.update(self._task, description=description, total=total, completed=stats.done)
        self._note(_note(stats))

    def _note(self, text: str) -> None:
        """Show a note behind the figures; without enough room, the bar is left out first, then the note's middle."""
        task = self._bar.tasks[self._task]
        figures = len(f" {task.description} 100% {task.completed}/{task.total or '?'} ") + len(str(task.total or "?"))
        room = self._console.width - figures - _SPINNER_WIDTH
        narrow = len(text) > room - _BAR_WIDTH
        note = escape(shortened(one_line(text), max(room, _LEAST_NOTE)))  # it can hold text of an API
        self._bar.update(self._task, note=note, narrow=narrow)

    def _print(self, text: str) -> None:
        self._printed_at = time.monotonic()
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


class _Bar(BarColumn):
    """A bar that is left out if there is no room for it."""

    def render(self, task: Task) -> Any:
        return Text() if task.fields["narrow"] else super().render(task)


def shortened(text: str, room: int) -> str:
    """Return a text of at most `room` characters: its middle is left out, because the end says what happens next."""
    if len(text) <= room:
        return text
    end = text[text.rfind("; ") :] if "; " in text else text[-_TAIL:]
    tail = end if len(end) <= room // 2 else end[-(room // 2) :]
    return f"{text[: room - len(tail) - 3].rstrip()}...{tail}"


def watch(run: Run) -> Run:
    """Show a run until it has ended, or the process is asked to stop.

    While the database does not answer, it says so and keeps asking: an outage does not end the run.

    Returns:
      Run: As it was last read.

    Raises:
      DependencyDown: The database has not answered for ten minutes.
    """
    answered_at = clock.monotonic()
    with Display() as display:
        while True:
            try:
                with database.connection():
                    run = runs.get(run.id)
                    display.show(run)
                answered_at = clock.monotonic()
            except (DependencyDown, PeeweeException) as error:
                if not isinstance(error, DependencyDown) and not database.is_away(error):
                    raise
                left = answered_at + _PATIENCE_SECONDS - clock.monotonic()
                if left <= 0:
                    raise
                meanwhile = "the run continues where workers reach the database"
                display.warn(f"{_outage(error)}: {meanwhile}; asking again for {duration(left)}")
            if run.status in ENDED or clock.sleep(_LOOK_SECONDS):
                return run


def _outage(error: Exception) -> str:
    if isinstance(error, DependencyDown):
        return str(error)
    return f"the database does not answer: {database.explain(error)}"


def line(stats: RunStats) -> str:
    """Return the progress of a run in one line."""
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
