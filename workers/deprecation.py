"""Deprecation warnings: a renamed parameter or method works under its old name, and names the new one."""

import warnings


def warn_renamed(old: str, new: str, stacklevel: int = 2) -> None:
    """Warn the calling code that it uses an old name.

    Parameters:
      old(str): The old name, as the caller wrote it: `Permit.heard`.
      new(str): What to write instead.
      stacklevel(int): 2 where the function with the old name calls this; one more for each function in between.
    """
    warnings.warn(f"{old} is renamed: use {new}", DeprecationWarning, stacklevel=stacklevel + 1)
