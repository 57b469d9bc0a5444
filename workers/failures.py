"""Classifies failures of items and lists: class, action, stored reason, and the fingerprint of similar failures."""

import hashlib
import re
from enum import StrEnum

from workers.text import redaction
from workers.text.plain_text import one_line

#: Longest reason that is stored, in characters.
REASON_LENGTH = 500
#: Longest reason before it is cut: an exception can quote a whole hostile response.
_UNCUT_LENGTH = 10 * REASON_LENGTH


class FailureClass(StrEnum):
    """Why an attempt failed. `ACTIONS` has the action of each."""

    #: The budget is closed, or the API said 429.
    RATE_LIMITED = "rate_limited"
    #: A timeout, a reset, a 5xx, a body that cannot be parsed: the next attempt can succeed.
    TRANSIENT = "transient"
    #: The credentials were refused: 401, 403.
    AUTH = "auth"
    #: 404, 410.
    NOT_FOUND = "not_found"
    #: The API answered, and the row cannot store the answer.
    BAD_DATA = "bad_data"
    #: The API or the source breaks the contract: another shape, a redirect, an endless list.
    CONTRACT = "contract"
    #: An exception of the user's own code; or the worker process died while it worked on the item.
    BUG = "bug"


def class_named(word: str) -> FailureClass:
    """Return the class of this name; `BAD_DATA` for an unknown name, which a user's code can pass."""
    try:
        return FailureClass(word)
    except ValueError:
        return FailureClass.BAD_DATA


#: The action for an item, or for a list, whose attempt failed.
ACTIONS: dict[FailureClass, str] = {
    FailureClass.RATE_LIMITED: "It waits until the budget opens. No attempt is spent, and no failure is stored.",
    FailureClass.TRANSIENT: "It is retried after 30, 60, 120 and 240 s; then it has failed.",
    FailureClass.AUTH: "It has failed. When the API refuses all requests, the run fails: the circuit opens.",
    FailureClass.NOT_FOUND: "It has failed.",
    FailureClass.BAD_DATA: "It has failed.",
    FailureClass.CONTRACT: "It has failed; a list fails its run.",
    FailureClass.BUG: "It is retried like a transient failure, and logged; a list fails its run.",
}

#: Refusals of credentials in a row, over all lanes of a run, that open its circuit: the run fails.
CIRCUIT = 20

_VARIABLE = (
    (re.compile(r"(?<!\w\w)'(?:[^']*'|[^']{200,}$)|\"(?:[^\"]*\"|[^\"]{200,}$)"), "'?'"),  # a long one can be cut
    (re.compile(r"\b[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*\b"), "#"),
    (re.compile(r"\d+"), "#"),
)


def storable_reason(text: str | None) -> str:
    """Return a reason as it is stored and shown: one line, without secrets, at most 500 characters."""
    return uncut_reason(text)[:REASON_LENGTH]


def uncut_reason(text: str | None) -> str:
    """Return a reason before it is cut, for its fingerprint.

    The place of a cut depends on the length of ids in the text; similar failures must have the same fingerprint.
    """
    return one_line(redaction.excerpt(text or "", _UNCUT_LENGTH)).encode("utf-8", "replace").decode()


def fingerprint(failure_class: str, reason: str, external_id: str = "") -> str:
    """Return the fingerprint that similar failures share: 12 hexadecimal digits.

    Numbers, ids and quoted text do not change it.

    Parameters:
      failure_class(str): One of `FailureClass`.
      reason(str): As `uncut_reason` returns it.
      external_id(str): The item's id, which many reasons contain.
    """
    own = one_line(external_id)
    alike = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", "#", reason) if own else reason
    for pattern, instead in _VARIABLE:
        alike = pattern.sub(instead, alike)
    return hashlib.sha256(f"{failure_class} {alike}".encode("utf-8", "replace")).hexdigest()[:12]
