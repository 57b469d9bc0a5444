"""A missing extra: what is said where one is needed."""

import sys

import pytest

from workers import extras
from workers.errors import ConfigurationError


@pytest.mark.parametrize("extra", extras.MODULES)
def test_a_missing_extra_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    # Given: as where its last package cannot be imported
    monkeypatch.setitem(sys.modules, extras.MODULES[extra][-1], None)

    # Then
    assert not extras.is_installed(extra)
    with pytest.raises(ConfigurationError, match=rf'This needs .*: pip install "sluice-importer\[{extra}\]"$'):
        extras.require(extra, "This")


def test_an_extra_that_is_installed_passes() -> None:
    assert extras.is_installed("postgres")
    extras.require("postgres", "This")
