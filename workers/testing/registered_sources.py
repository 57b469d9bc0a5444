"""Hold the list that SLUICE_SOURCES names while a test runs; `installation` fills it."""

from workers.sources.contracts import ImportSource

SOURCES: list[ImportSource] = []
