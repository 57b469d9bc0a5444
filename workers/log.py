"""Logging, on stderr: lines for people by default, one JSON object a line by switch."""

import json
import logging
import sys
from datetime import UTC, datetime

from workers.settings import get_settings

#: Libraries that say too much, or say what we say ourselves.
_QUIETER = {
    "dramatiq": logging.WARNING,
    "urllib3": logging.WARNING,
    "peewee": logging.WARNING,
    "streamlit": logging.WARNING,
}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up() -> None:
    """Send this process's log to stderr, as the settings say."""
    settings = get_settings()
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonLines() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for name, level in _QUIETER.items():
        logging.getLogger(name).setLevel(level)
