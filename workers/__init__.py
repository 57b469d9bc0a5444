"""Sluice: imports from rate-limited APIs at the fastest pace the API allows, losing and repeating nothing.

Importing this package touches no broker, no database and no network: a name's module is imported when the name is first
used, because `--help` must not take a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workers.version import VERSION

if TYPE_CHECKING:
    from workers.connections.database import db
    from workers.control.from_code import adjust, cancel, force, pause, reschedule, resume, retry, run_stats, start_run
    from workers.cron import CatchUp
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
    from workers.failures import FailureClass
    from workers.limiter.budget import Budget, Limit
    from workers.limiter.lesson import Lesson
    from workers.limiter.permits import Permit, PermitClient, Usage
    from workers.limiter.rate_limit_headers import Quota
    from workers.limiter.rate_limiter import RateLimiter
    from workers.limiter.redis_ledger import Watermark
    from workers.limiter.state import BudgetState, Note, WindowState
    from workers.records.import_status import HasImportStatus
    from workers.records.tables import ItemStatus, Run, RunItem, RunStatus
    from workers.reports.run_stats import RunStats
    from workers.sources.address import path
    from workers.sources.connector import Connector
    from workers.sources.contracts import Importable, ImportSource
    from workers.sources.source_run import SourceRun

__version__ = VERSION

__all__ = [
    "AuthError",
    "Budget",
    "BudgetState",
    "CatchUp",
    "ConfigurationError",
    "Connector",
    "DependencyDown",
    "FailureClass",
    "HasImportStatus",
    "ImportSource",
    "Importable",
    "InvalidTransition",
    "ItemStatus",
    "Lesson",
    "Limit",
    "LongWait",
    "Note",
    "PermanentError",
    "Permit",
    "PermitClient",
    "Quota",
    "RateLimited",
    "RateLimiter",
    "RetryableError",
    "Run",
    "RunItem",
    "RunStats",
    "RunStatus",
    "Skip",
    "SluiceError",
    "SourceRun",
    "UnknownRun",
    "UnknownSource",
    "Usage",
    "UsageError",
    "Watermark",
    "WindowState",
    "adjust",
    "cancel",
    "db",
    "force",
    "path",
    "pause",
    "reschedule",
    "resume",
    "retry",
    "run_stats",
    "start_run",
]

#: In which module each public name is defined.
_HOMES = {
    "connections.database": "db",
    "control.from_code": "adjust cancel force pause reschedule resume retry run_stats start_run",
    "cron": "CatchUp",
    "errors": "AuthError ConfigurationError DependencyDown InvalidTransition LongWait PermanentError RateLimited "
    "RetryableError Skip SluiceError UnknownRun UnknownSource UsageError",
    "failures": "FailureClass",
    "limiter.budget": "Budget Limit",
    "limiter.rate_limit_headers": "Quota",
    "limiter.redis_ledger": "Watermark",
    "limiter.lesson": "Lesson",
    "limiter.permits": "Permit PermitClient Usage",
    "limiter.rate_limiter": "RateLimiter",
    "limiter.state": "BudgetState Note WindowState",
    "records.tables": "ItemStatus Run RunItem RunStatus",
    "records.import_status": "HasImportStatus",
    "reports.run_stats": "RunStats",
    "sources.address": "path",
    "sources.connector": "Connector",
    "sources.contracts": "Importable ImportSource",
    "sources.source_run": "SourceRun",
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
