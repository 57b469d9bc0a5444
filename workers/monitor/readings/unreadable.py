"""The exception for a page that cannot be shown now, with the cause and the repair."""


class Unreadable(Exception):
    """The page cannot be shown now. Its heading and its sentence are shown; details go to the log.

    Parameters:
      what(str): The cause.
      repair(str): What to do.
      tone(str): bad; or warn where nothing is broken.
    """

    def __init__(self, what: str, repair: str, tone: str = "bad") -> None:
        super().__init__(f"{what}. {repair}")
        self.what = what
        self.repair = repair
        self.tone = tone
