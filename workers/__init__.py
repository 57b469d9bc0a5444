"""Sluice: imports from rate-limited APIs, at the fastest pace the API allows, losing and repeating nothing.

Importing this package touches no broker, no database and no network.
"""

from workers.budget import Budget, Limit
from workers.connector import Connector
from workers.contracts import Importable, ImportSource
from workers.database import db
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
from workers.limiter import RateLimiter
from workers.tables import Run, RunItem
from workers.tracking import HasImportStatus
from workers.version import VERSION

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
]
