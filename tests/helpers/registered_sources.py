"""The list of sources that each test fills; SLUICE_SOURCES=tests.helpers.registered_sources:SOURCES names it."""

from workers.settings import get_settings
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.testing.registered_sources import SOURCES

__all__ = ["SOURCES", "register"]


def register(source: ImportSource, *, replace: bool = False) -> None:
    """Add a source, or replace the one of its name; this process then reads its settings and its sources anew."""
    if replace:
        SOURCES[:] = [one for one in SOURCES if one.name != source.name]
    SOURCES.append(source)
    get_settings.cache_clear()
    get_registry.cache_clear()
