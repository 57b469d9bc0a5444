"""The sources of the tests: a list that each test fills, named by SLUICE_SOURCES=tests.helpers.hosts:SOURCES."""

from typing import Any

SOURCES: list[Any] = []
