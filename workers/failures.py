"""FailureClass: the word a failure is filed under, and what is done about it. And which failures are alike."""

import hashlib
import re
from enum import StrEnum

from workers.text import redaction
from workers.text.plain_text import one_line

#: Longest reason that is stored, in characters.
REASON_LENGTH = 500
#: Longest that is looked at: an exception may quote all of a hostile answer.
_WHOLE_LENGTH = 10 * REASON_LENGTH


class FailureClass(StrEnum):
    """Why an attempt failed. Each has one action, which `ACTIONS` tells."""

    #: The budget is closed, or the API said 429.
    RATE_LIMITED = "rate_limited"
    #: A timeout, a reset, a 5xx, a body that does not parse: the next attempt may succeed.
    TRANSIENT = "transient"
    #: The credentials were refused: 401, 403.
    AUTH = "auth"
    #: 404, 410.
    NOT_FOUND = "not_found"
    #: The API answered, and the row cannot take it.
    BAD_DATA = "bad_data"
    #: The API or the source is not what was agreed: another shape, a redirect, an endless list.
    CONTRACT = "contract"
    #: An exception of the user's own code; or the worker died with the item in hand.
    BUG = "bug"


def class_named(word: str) -> FailureClass:
    """Return the class of this name; of a name that is none, which a user's code may give, that of bad data."""
    try:
        return FailureClass(word)
    except ValueError:
        return FailureClass.BAD_DATA


#: What becomes of an item, and of the list, whose attempt fails so.
ACTIONS: dict[FailureClass, str] = {
    FailureClass.RATE_LIMITED: "It waits until the budget opens; no attempt is spent, nothing is stored.",
    FailureClass.TRANSIENT: "It is tried again after 30, 60, 120 and 240 s; then it has failed.",
    FailureClass.AUTH: "It has failed. When everything is refused, the run fails: the circuit opens.",
    FailureClass.NOT_FOUND: "It has failed.",
    FailureClass.BAD_DATA: "It has failed.",
    FailureClass.CONTRACT: "It has failed; a list fails its run.",
    FailureClass.BUG: "It is tried again like a transient one, and is in the log; a list fails its run.",
}

#: So many refusals of credentials in a row, over all lanes of a run, open its circuit: the run fails.
CIRCUIT = 20

_VARIABLE = (
    (re.compile(r"(?<!\w\w)'(?:[^']*'|[^']{200,}$)|\"(?:[^\"]*\"|[^\"]{200,}$)"), "'?'"),  # a long one may be cut
    (re.compile(r"\b[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*\b"), "#"),
    (re.compile(r"\d+"), "#"),
)


def storable_reason(text: str | None) -> str:
    """Return a reason as it may be stored and shown: on one line, without secrets, bounded."""
    return whole_reason(text)[:REASON_LENGTH]


def whole_reason(text: str | None) -> str:
    """Return a reason before it is cut to be stored: what a fingerprint is taken of.

    Where a cut falls depends on the length of the ids before it, and alike failures must not differ in that.
    """
    return one_line(redaction.excerpt(text or "", _WHOLE_LENGTH)).encode("utf-8", "replace").decode()


def fingerprint(failure_class: str, reason: str, external_id: str = "") -> str:
    """Return what failures of one kind have in common: 12 hexadecimal digits.

    Parameters:
      failure_class(str): One of `FailureClass`.
      reason(str): As `whole_reason` returns it.
      external_id(str): The item's own, which stands in many reasons.

    Numbers, ids and quoted text do not tell two failures apart.
    """
    own = one_line(external_id)
    alike = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", "#", reason) if own else reason
    for pattern, instead in _VARIABLE:
        alike = pattern.sub(instead, alike)
    return hashlib.sha256(f"{failure_class} {alike}".encode("utf-8", "replace")).hexdigest()[:12]
