"""SourceRun: what a source can read of the run it works for."""

from collections.abc import Mapping
from typing import Any, Protocol


class SourceRun(Protocol):
    """What `get_connector` can read of a run: a stored `Run`, or one that is only planned.

    Attributes:
      id: The run's number; None where it is only planned, and not stored.
      source: The source's name.
      tenant: For whom the run is, where the source has tenants.
      lanes: How many items it works on at once.
      options: How it was started: {"fresh": True} or {}.
    """

    @property
    def id(self) -> int | None: ...
    @property
    def source(self) -> str: ...
    @property
    def tenant(self) -> str | None: ...
    @property
    def lanes(self) -> int: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
