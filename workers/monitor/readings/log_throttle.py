"""Logs a repeating error of a page at most twice a minute."""

import logging
import time

from workers.text.error_text import message_of

log = logging.getLogger(__name__)

_REMIND_SECONDS = 30.0
_logged_at: dict[str, float] = {}


def log_throttled(what: str, error: BaseException, *, trace: bool = False) -> None:
    """Log an error, at most twice a minute.

    Parameters:
      what(str): What failed.
      error(BaseException): The cause.
      trace(bool): Whether to log the traceback: for unexpected errors.
    """
    now = time.monotonic()
    if now - _logged_at.get(what, -_REMIND_SECONDS) < _REMIND_SECONDS:
        return
    _logged_at[what] = now
    log.warning("%s: %s", what, message_of(error), exc_info=error if trace else None)
