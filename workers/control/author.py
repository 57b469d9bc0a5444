"""Author of an act: which person or program acts on a run, and from which door, as the timeline records both."""

import getpass
from typing import TypedDict

from workers.errors import UsageError

#: How many characters the database has room for.
_LONGEST = {"who": 100, "door": 20}


class Author(TypedDict):
    """Who acts and from where, as every act of the runner takes it: `runner.pause(7, **author)`.

    Attributes:
      who: A person's or a program's name.
      door: From where: cli, script, monitor, code, scheduler.
    """

    who: str
    door: str


def author(who: str | None, door: str) -> Author:
    """Return the author of an act.

    Parameters:
      who(str | None): 1 to 100 characters; None: the operating system's user.
      door(str): 1 to 20 characters.

    Raises:
      UsageError: One of them is empty or too long.
    """
    made = Author(who=system_user() if who is None else who, door=door)
    for name, text in (("who", made["who"]), ("door", made["door"])):
        if not 1 <= len(text) <= _LONGEST[name]:
            raise UsageError(f"{name} has 1 to {_LONGEST[name]} characters, not {len(text):,}")
    return made


def system_user() -> str:
    """Return the login name of the process's user; "unknown" where the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
