"""Logging, on stderr: lines for people by default, one JSON object a line by switch."""

import json
import logging
import sys
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from workers.redaction import hide, redact
from workers.settings import get_settings

#: Libraries that say too much, or say what we say ourselves.
_QUIETER = {
    "dramatiq": logging.WARNING,
    "urllib3": logging.WARNING,
    "peewee": logging.WARNING,
    "psycopg": logging.ERROR,  # its warnings quote the row that was refused
    "streamlit": logging.WARNING,
}

#: Longest text of one line, in characters: an exception may quote all of a hostile answer.
_LENGTH = 20_000


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record)[:_LENGTH])


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "thread": record.threadName,
            "message": redact(record.getMessage()[:_LENGTH]),
        }
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info)[:_LENGTH])
        return json.dumps(line)


def set_up() -> None:
    """Send this process's log to stderr, as the settings say."""
    settings = get_settings()
    handler = logging.StreamHandler(sys.stderr)
    for url in (settings.redis_url, settings.broker_url, settings.database_url):
        hide(_password(url))
    text = _Lines("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonLines() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for name, level in _QUIETER.items():
        logging.getLogger(name).setLevel(level)


def _password(url: str) -> str | None:
    try:
        password = urlsplit(url).password
    except ValueError:
        return None
    return unquote(password) if password else None
