"""Every error of Sluice, sorted by what its reader should do about it.

    SluiceError
    ├── RateLimited         wait: nothing is wrong, the budget is closed until a known time
    │   ├── BudgetClosed    there is no permit now
    │   └── Refused         the API refused this request: 429 and its like
    │       └── LongWait    it asked for a longer wait than Sluice believes unasked: the run is paused
    ├── RetryableError      retry: the same request may well succeed later
    ├── PermanentError      give up on this item: asking again cannot help
    │   ├── AuthError       the credentials were refused
    │   └── NotModified     304: what a conditional request asked for is as it was
    ├── Skip                not an error of anyone: the source does not want this item
    ├── UsageError          the caller asked for something that cannot be; the message names the fix
    │   ├── ConfigurationError
    │   ├── UnknownSource
    │   ├── UnknownRun
    │   ├── AlreadyDone     the act was done before: a second press, or one that came late
    │   └── InvalidTransition
    └── DependencyDown      Redis or the database is away
        └── BudgetUnknown   the budget's permits cannot be had: Redis, or what outlives it, does not answer

`failure_class` is the word a failure is stored under.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from workers.text.durations import duration, wait


class SluiceError(Exception):
    """The root of every error Sluice raises on purpose."""


class RateLimited(SluiceError):
    """The budget is closed; come back in `wait_seconds`. Waiting is not failing: no attempt is spent.

    Parameters:
      wait_seconds(float): How long until it is worth asking again.
      reason(str): Which window, pause or outage is in the way.
    """

    def __init__(self, wait_seconds: float, reason: str) -> None:
        super().__init__(f"{reason}: come back in {wait(wait_seconds)}")
        self.wait_seconds = wait_seconds
        self.reason = reason


class BudgetClosed(RateLimited):
    """There is no permit now: a window is full, the budget is paused, the run was stopped. Nothing was sent."""


class Refused(RateLimited):
    """The API refused a request that was sent: 429 and its like.

    Parameters:
      wait_seconds(float): How long until it is worth asking again.
      reason(str): What the API said.
      own(bool): Whether the refusal is the request's own: others were answered since it was refused before. Then the
        budget has not been paused by it.
      at_us(int): When it was refused, in microseconds by the budget's clock; see `permits.Subject`.
    """

    def __init__(self, wait_seconds: float, reason: str, *, own: bool = False, at_us: int = 0) -> None:
        super().__init__(wait_seconds, reason)
        self.own = own
        self.at_us = at_us


class LongWait(Refused):
    """The API asked for a wait of more than 25 hours (or SLUICE_LONGEST_PAUSE_SECONDS): a person should know.

    Parameters:
      wait_seconds(float): For how long the budget pauses.
      reason(str): What the API said.
      asked_seconds(float): How long it asked to wait.
    """

    def __init__(self, wait_seconds: float, reason: str, asked_seconds: float) -> None:
        super().__init__(wait_seconds, reason)
        self.asked_seconds = asked_seconds
        self.args = (f"{reason}: a wait of {duration(asked_seconds)}; resume the run when it is to be tried again",)


class RetryableError(SluiceError):
    """A timeout, a reset, a 5xx, a body that does not parse: the next attempt may succeed."""

    failure_class: ClassVar[str] = "transient"


class PermanentError(SluiceError):
    """The item cannot be had: 404, 410, bad data, a broken contract. No further attempt is made.

    Parameters:
      message(str): What happened and, where one is known, the repair.
      failure_class(str): not_found, bad_data, contract or auth.
    """

    def __init__(self, message: str, failure_class: str = "bad_data") -> None:
        super().__init__(message)
        self.failure_class = failure_class


class AuthError(PermanentError):
    """The API refused the credentials.

    Parameters:
      message(str): What happened and the repair.
      status(int): 401, or 403, which may be about this one item.
    """

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message, failure_class="auth")
        self.status = status


class NotModified(PermanentError):
    """The API answered 304 to a request with If-None-Match or If-Modified-Since: nothing has changed.

    An item whose details were asked for so is complete as it is. Whatever needs an answer's body, as a list page does,
    has none: there it is a contract that was broken, and the message says the repair.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, failure_class="contract")


class Skip(SluiceError):
    """Raised by a model's `populate_from_api_response`: the item ends as skipped, with this reason."""


class UsageError(SluiceError):
    """The caller asked for something that cannot be; the message names the fix."""


class ConfigurationError(UsageError):
    """A setting, a source or a model is not what it must be."""


class UnknownSource(UsageError):
    """No source has this name.

    Parameters:
      name(str): The name that was asked for.
      known(Sequence[str]): The names there are.
    """

    def __init__(self, name: str, known: Sequence[str]) -> None:
        listed = ", ".join(sorted(known)) or "none: SLUICE_SOURCES names an empty list"
        super().__init__(f"There is no source named {name!r}. Known sources: {listed}.")
        self.name = name
        self.known = tuple(known)


class UnknownRun(UsageError):
    """No run has this id."""

    def __init__(self, run_id: int) -> None:
        super().__init__(f"There is no run {run_id}. `python -m workers status` lists the runs.")
        self.run_id = run_id


class AlreadyDone(UsageError):
    """The act that was pressed has been done already; nothing was done."""


class InvalidTransition(UsageError):
    """The run cannot move to the asked status from the one it is in.

    Parameters:
      run_id(int): The run.
      status(str): The status it is in.
      to(str): The status that was asked for.
    """

    def __init__(self, run_id: int, status: str, to: str, hint: str = "") -> None:
        said = f"is already {status}" if status == to else f"is {status} and cannot become {to}"
        super().__init__(f"Run {run_id} {said}.{' ' + hint if hint else ''}")
        self.run_id = run_id
        self.status = status
        self.to = to


class DependencyDown(SluiceError):
    """Redis or the database does not answer."""


class BudgetUnknown(DependencyDown):
    """Redis, or what keeps the budget's watermark, does not answer: without them there is no permit."""


@contextmanager
def other_budgets() -> Iterator[None]:
    """Within the block, which is a user's code, let what is raised of a budget be what a user may raise.

    It is of another budget than the run's, a limiter that the code uses by itself: the run's opens nothing for it.

    Raises:
      RateLimited: In place of `BudgetClosed` and `Refused`.
      DependencyDown: In place of `BudgetUnknown`.
    """
    try:
        yield
    except (BudgetClosed, Refused) as wait:
        raise RateLimited(wait.wait_seconds, wait.reason) from wait
    except BudgetUnknown as error:
        raise DependencyDown(*error.args) from error
