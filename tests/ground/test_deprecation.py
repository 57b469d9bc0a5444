"""Old names of parameters and methods still work, and warn with the new name."""

import pytest

from workers.deprecation import warn_renamed


def test_a_renamed_function_warns_at_the_line_that_calls_it() -> None:
    def old_name() -> None:
        warn_renamed("old_name", "new_name")

    with pytest.warns(DeprecationWarning, match="^old_name is renamed: use new_name$") as caught:
        old_name()

    assert caught[0].filename == __file__
