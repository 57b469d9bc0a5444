"""Creates a new run of a source, after checking its options, its tenant, its model's table and what else is active."""

from datetime import datetime
from typing import Any

from workers.control import tenants
from workers.engine.fresh_runs import refuse, sources_of_table
from workers.errors import UsageError
from workers.records import activation, model_database, runs, table_check
from workers.records.tables import Run
from workers.settings import get_settings
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry


def source_named(name: str | None) -> ImportSource:
    """Return a source; with None the only one there is.

    Raises:
      UnknownSource: No source has this name.
      UsageError: None, and there are several.
    """
    return get_registry()[name] if name is not None else get_registry().only()


def create(
    source_name: str | None,
    *,
    who: str,
    door: str,
    tenant: str | None,
    fresh: bool,
    even_if_empty: bool,
    at: datetime | None,
) -> Run:
    """Create a run: pending, or scheduled where `at` is given. Parameters and errors are those of `runner.start`."""
    options = _options(fresh, even_if_empty)
    source = source_named(source_name)
    tenants.check(tenant)
    if fresh:
        _refuse_fresh(source, tenant, at)
    table_check.check_named(type(source).__name__, source.model)
    with model_database.connected(source.model):
        table_check.check(type(source).__name__, source.model, source.unique_by)
    lanes = get_settings().lanes or source.lanes
    return runs.create(
        source.name, lanes=lanes, created_by=who, door=door, tenant=tenant, scheduled_at=at, options=options
    )


def _options(fresh: bool, even_if_empty: bool) -> dict[str, Any]:
    """Return the options as the run stores them.

    Raises:
      UsageError: `even_if_empty` is given without `fresh`.
    """
    if even_if_empty and not fresh:
        raise UsageError("--even-if-empty is for --fresh: give both, or neither")
    return ({"fresh": True} if fresh else {}) | ({"even_if_empty": True} if even_if_empty else {})


def _refuse_fresh(source: ImportSource, tenant: str | None, at: datetime | None) -> None:
    """Refuse a fresh run that could delete rows which another run writes, or rows of others.

    A scheduled one is not compared with the runs that are active now: that is done when it begins, and when it deletes.
    """
    if source.allow_fresh and at is None:
        for run in activation.active_of(sources_of_table(source)):
            if (run.source, run.tenant) != (source.name, tenant):  # for a run of its own source it waits
                whose = f"{run.source} for {run.tenant}" if run.tenant else run.source
                raise UsageError(
                    f"Run {run.id} of {whose} is {run.status}, and writes to the same table: "
                    f"start the fresh run when it has ended, or cancel it first"
                )
    refuse(source, tenant)
