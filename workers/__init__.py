"""Sluice: imports from rate-limited APIs, at the fastest pace the API allows, losing and repeating nothing.

Importing this package touches no broker, no database and no network.
A name's module is imported when it is first used: `--help` must not take a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workers.version import VERSION

if TYPE_CHECKING:
    from workers.connections.database import db
    from workers.errors import (
        AuthError,
        ConfigurationError,
        DependencyDown,
        InvalidTransition,
        LongWait,
        PermanentError,
        RateLimited,
        RetryableError,
        Skip,
        SluiceError,
        UnknownRun,
        UnknownSource,
        UsageError,
    )
    from workers.limiter.budget import Budget, Limit
    from workers.limiter.rate_limiter import RateLimiter
    from workers.records.tables import Run, RunItem
    from workers.records.tracking import HasImportStatus
    from workers.sources.address import path
    from workers.sources.connector import Connector
    from workers.sources.contracts import Importable, ImportSource

__version__ = VERSION

__all__ = [
    "AuthError",
    "Budget",
    "ConfigurationError",
    "Connector",
    "DependencyDown",
    "HasImportStatus",
    "ImportSource",
    "Importable",
    "InvalidTransition",
    "Limit",
    "LongWait",
    "PermanentError",
    "RateLimited",
    "RateLimiter",
    "RetryableError",
    "Run",
    "RunItem",
    "Skip",
    "SluiceError",
    "UnknownRun",
    "UnknownSource",
    "UsageError",
    "db",
    "path",
]

_HOMES = {
    "sources.address": "path",
    "limiter.budget": "Budget Limit",
    "sources.connector": "Connector",
    "sources.contracts": "Importable ImportSource",
    "connections.database": "db",
    "errors": "AuthError ConfigurationError DependencyDown InvalidTransition LongWait PermanentError RateLimited "
    "RetryableError Skip SluiceError UnknownRun UnknownSource UsageError",
    "limiter.rate_limiter": "RateLimiter",
    "records.tables": "Run RunItem",
    "records.tracking": "HasImportStatus",
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
