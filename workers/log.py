"""Configures the log on stderr: lines for people, or one JSON object per line. Hides secrets and control characters.

Each record is one line of text; the lines of a traceback are indented.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from urllib.parse import unquote, urlsplit

from workers.settings import get_settings
from workers.text.error_text import UNREADABLE, message_of, traceback_of
from workers.text.plain_text import block, lines, one_line
from workers.text.redaction import excerpt, hide

#: Libraries that log too much, or log what Sluice logs itself.
_QUIETER = {
    "dramatiq": logging.WARNING,
    "urllib3": logging.WARNING,
    "peewee": logging.WARNING,
    "psycopg": logging.ERROR,  # its warnings quote the refused row
    "streamlit": logging.WARNING,
}

#: Longest text of one line, in characters: an exception can quote a whole hostile response.
_LENGTH = 20_000


class Lines(logging.Formatter):
    """Formats records as lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        record.message = one_line(excerpt(message_in(record), _LENGTH))
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        traceback = _traceback_in(record)
        return f"{line}\n{block(traceback)}" if traceback else line


class JsonLines(logging.Formatter):
    """Formats records as one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "thread": record.threadName,
            "message": one_line(excerpt(message_in(record), _LENGTH)),
        }
        if traceback := _traceback_in(record):
            line["exception"] = lines(traceback)
        return json.dumps(line)


def message_in(record: logging.LogRecord) -> str:
    """Return a record's message, secrets included; its template where an argument cannot be read."""
    try:
        return "".join([record.getMessage()])
    except KeyboardInterrupt:
        raise
    except BaseException:  # an argument can be a user's exception: the line must not get lost
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{template} ({', '.join(map(_argument, _arguments(record)))})"


def _arguments(record: logging.LogRecord) -> tuple[object, ...]:
    return record.args if isinstance(record.args, tuple) else (record.args,)


def _argument(value: object) -> str:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {message_of(value)}"
    return str(value) if isinstance(value, (str, int, float)) else UNREADABLE


def _traceback_in(record: logging.LogRecord) -> str:
    raised = record.exc_info[1] if record.exc_info else None
    parts = (traceback_of(raised) if raised else "", record.stack_info or "")
    return excerpt("\n".join(filter(None, parts)), _LENGTH)


def set_up() -> None:
    """Send this process's log to stderr, with the level and format of the settings."""
    settings = get_settings()
    handler = logging.StreamHandler(sys.stderr)
    for url in (settings.redis_url, settings.broker_url, settings.database_url):
        hide(_password(url))
    text = Lines("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonLines() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = uncaught  # Python's own output would show secrets
    for name, level in _QUIETER.items():
        logging.getLogger(name).setLevel(level)


def uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Log an uncaught exception; used as `sys.excepthook`. The process then ends."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger(__name__).critical("this process ends: uncaught exception", exc_info=(kind, error, traceback))


def _password(url: str) -> str | None:
    try:
        password = urlsplit(url).password
    except ValueError:
        return None
    return unquote(password) if password else None
