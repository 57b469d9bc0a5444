"""All errors of Sluice, sorted by what the caller should do: wait, retry, give up, correct the call.

    SluiceError
    ├── RateLimited         wait: the budget is closed until a known time
    │   ├── BudgetClosed    there is no permit now
    │   └── Refused         the API refused this request: 429 and its like
    │       └── LongWait    it asked to wait for more than 25 hours: the run is paused
    ├── RetryableError      retry: the same request can succeed later
    ├── PermanentError      give up on this item: asking again cannot help
    │   ├── AuthError       the credentials were refused
    │   └── NotModified     304: a conditional request, and nothing has changed
    ├── Skip                not an error: the source does not want this item
    ├── UsageError          correct the call: it cannot work; the message names the repair
    │   ├── ConfigurationError
    │   ├── UnknownSource
    │   ├── UnknownRun
    │   ├── AlreadyDone     the action was done before: a second click, or a late one
    │   └── InvalidTransition
    └── DependencyDown      Redis or the database is away
        └── BudgetUnknown   no permit: Redis, or the database with the budget's watermark, does not answer

`failure_class` is the class under which a failure is stored.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from workers.text.durations import duration, wait


class SluiceError(Exception):
    """The base class of all errors that Sluice raises on purpose.

    Parameters:
      *args(object): The message: what happened.
      repair(str): What a person can do about it. The error's text is the message, a colon and the repair.

    Attributes:
      what: The message without the repair.
    """

    def __init__(self, *args: object, repair: str = "") -> None:
        super().__init__(*([f"{args[0]}: {repair}", *args[1:]] if args and repair else args))
        self.what = str(args[0]) if args else ""
        self.repair = repair


class RateLimited(SluiceError):
    """The budget is closed; try again after `wait_seconds`. A wait spends no attempt.

    Parameters:
      wait_seconds(float): How long to wait before the next try.
      reason(str): The window, pause or outage that is the cause.
    """

    def __init__(self, wait_seconds: float, reason: str) -> None:
        super().__init__(f"{reason}: try again in {wait(wait_seconds)}")
        self.wait_seconds = wait_seconds
        self.reason = reason


class BudgetClosed(RateLimited):
    """No permit now: a window is full, the budget is paused, or the run was stopped. No request was sent."""


class Refused(RateLimited):
    """The API refused a request that was sent: 429 or a status like it.

    Parameters:
      wait_seconds(float): How long to wait before the next try.
      reason(str): What the API said.
      own(bool): Whether the refusal concerns this request alone, because other requests were answered since its refusal
        before. Then it has not paused the budget.
      at_us(int): When it was refused, in microseconds by the budget's clock; see `permits.Subject`.
    """

    def __init__(self, wait_seconds: float, reason: str, *, own: bool = False, at_us: int = 0) -> None:
        super().__init__(wait_seconds, reason)
        self.own = own
        self.at_us = at_us


class LongWait(Refused):
    """The API asked to wait for more than 25 hours (or SLUICE_LONGEST_PAUSE_SECONDS): a person should decide.

    Parameters:
      wait_seconds(float): For how long the budget pauses.
      reason(str): What the API said.
      asked_seconds(float): How long it asked to wait.
    """

    def __init__(self, wait_seconds: float, reason: str, asked_seconds: float) -> None:
        super().__init__(wait_seconds, reason)
        self.asked_seconds = asked_seconds
        self.what = f"{reason}: a wait of {duration(asked_seconds)}; resume the run to try again"
        self.args = (self.what,)


class RetryableError(SluiceError):
    """A timeout, a reset, a 5xx, a body that cannot be parsed: the next attempt can succeed."""

    failure_class: ClassVar[str] = "transient"


class PermanentError(SluiceError):
    """The item cannot be imported: 404, 410, bad data, a broken contract. It is not retried.

    Parameters:
      message(str): What happened and, where known, the repair.
      failure_class(str): not_found, bad_data, contract or auth.
    """

    def __init__(self, message: str, failure_class: str = "bad_data") -> None:
        super().__init__(message)
        self.failure_class = failure_class


class AuthError(PermanentError):
    """The API refused the credentials.

    Parameters:
      message(str): What happened and the repair.
      status(int): 401, or 403, which can concern this item alone.
    """

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message, failure_class="auth")
        self.status = status


class NotModified(PermanentError):
    """The API answered 304 to a request with If-None-Match or If-Modified-Since: nothing has changed.

    An item whose details were requested so is complete. A request that needs the body, such as a list page, breaks the
    contract with it; the message says the repair.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, failure_class="contract")


class Skip(SluiceError):
    """Raise it in a model's `populate_from_api_response`: the item ends as skipped, with this reason."""


class UsageError(SluiceError):
    """The call cannot work; the message names the repair."""


class ConfigurationError(UsageError):
    """A setting, a source or a model is not valid."""


class UnknownSource(UsageError):
    """No source has this name.

    Parameters:
      name(str): The requested name.
      known(Sequence[str]): The existing names.
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
    """The action has been done already, by an earlier click; this one did nothing."""


class InvalidTransition(UsageError):
    """The run cannot change from its status to the requested one.

    Parameters:
      run_id(int): The run.
      status(str): Its status.
      to(str): The requested status.
      hint(str): What to do instead.
    """

    def __init__(self, run_id: int, status: str, to: str, hint: str = "") -> None:
        problem = f"is already {status}" if status == to else f"is {status} and cannot become {to}"
        super().__init__(f"Run {run_id} {problem}.{' ' + hint if hint else ''}")
        self.run_id = run_id
        self.status = status
        self.to = to


class DependencyDown(SluiceError):
    """Redis or the database does not answer."""


class BudgetUnknown(DependencyDown):
    """Redis, or the database with the budget's watermark, does not answer: without them no permit is granted."""


@contextmanager
def other_budgets() -> Iterator[None]:
    """Run a block of a user's code; convert errors of a limiter that this code uses on its own.

    Such an error concerns another budget than the run's: the run must not wait for its own budget because of it.

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
