"""Tenants of a run: which names can be stored, which sources have tenants, and when a person's tenant is refused."""

from workers.errors import UsageError
from workers.records import runs
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry

#: How many characters the database has room for.
_LONGEST = 100


def check(tenant: str | None) -> None:
    """Refuse a name that cannot be stored.

    Raises:
      UsageError: It is empty, too long, or has characters that cannot be printed.
    """
    if tenant is not None and not 1 <= len(tenant) <= _LONGEST:
        raise UsageError(f"A tenant has 1 to {_LONGEST} characters, not {len(tenant):,}")
    if tenant is not None and not tenant.isprintable():
        raise UsageError(f"A tenant has only characters that can be printed, not {tenant!r}")


def has_tenants(source: ImportSource) -> bool:
    """Whether a source distinguishes tenants: it gives each an API of its own, or knows which rows belong to which."""
    kind = type(source)
    return kind.get_connector is not ImportSource.get_connector or kind.fresh_query is not ImportSource.fresh_query


def refuse(source_name: str | None, tenant: str | None) -> None:
    """Refuse a tenant that a person gives for a source without tenants.

    Its run would not wait for the source's other run, and both would import the same rows at the same time. Code can
    still start such a run by `runner.start`; from then on people can, too.

    Parameters:
      source_name(str | None): The source; None: the only one there is.
      tenant(str | None): The tenant; None is always accepted.

    Raises:
      UnknownSource: No source has this name.
      UsageError: The source has no tenants.
    """
    if tenant is None:
        return
    source = get_registry()[source_name] if source_name is not None else get_registry().only()
    if not has_tenants(source) and not runs.is_any_for(source.name, tenant):
        raise UsageError(
            f"{source.name} has no tenants: every run of it imports the same rows. Leave the tenant out, or make "
            f"get_connector return a different API for each tenant"
        )
