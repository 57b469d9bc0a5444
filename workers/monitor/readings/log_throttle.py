"""A complaint: what is wrong, in the log, but not each second for as long as it lasts."""

import logging
import time

from workers.text.error_text import message_of

log = logging.getLogger(__name__)

_REMIND_SECONDS = 30.0
_said: dict[str, float] = {}


def complain(what: str, error: BaseException, *, trace: bool = False) -> None:
    """Log what is wrong, at most twice a minute.

    Parameters:
      what(str): What could not be done.
      error(BaseException): Why.
      trace(bool): Whether the log needs the traceback: for what nobody expected.
    """
    now = time.monotonic()
    if now - _said.get(what, -_REMIND_SECONDS) < _REMIND_SECONDS:
        return
    _said[what] = now
    log.warning("%s: %s", what, message_of(error), exc_info=error if trace else None)
