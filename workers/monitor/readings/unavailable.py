"""Unreadable: what a page raises that cannot be filled now."""


class Unreadable(Exception):
    """The page cannot be filled now. Shown as a heading and a sentence; the details go to the log.

    Parameters:
      what(str): What is down.
      repair(str): What to do about it.
      tone(str): bad, or warn where nothing is broken.
    """

    def __init__(self, what: str, repair: str, tone: str = "bad") -> None:
        super().__init__(f"{what}. {repair}")
        self.what = what
        self.repair = repair
        self.tone = tone
