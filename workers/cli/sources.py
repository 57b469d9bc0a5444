"""The command `sources`: lists the registered sources with their APIs and limits."""

from typing import Any

import click

from workers.cli.exit_codes import EXIT_DONE
from workers.cli.printing import AS_JSON, answer, show, table
from workers.sources.registry import get_registry
from workers.text.redaction import redact


@click.command()
@AS_JSON
def sources(as_json: bool) -> int:
    """List the sources with their APIs and limits.

    SLUICE_SOURCES names them; default: the list SOURCES in sources.py of this folder.

    \b
    Example:
      python -m workers sources

    Next: `run SOURCE` imports one; `schedule set SOURCE "0 */3 * * *"` imports it every three hours.
    """
    known = get_registry().values()
    if as_json:
        answer([{"name": s.name, "api": redact(s.connector.base_url), "limits": _limits(s)} for s in known])
        return EXIT_DONE
    rows = [(s.name, s.model.__name__, redact(s.connector.base_url), ", ".join(_limits(s))) for s in known]
    show(table("source", "model", "API", "limits", rows=rows))
    return EXIT_DONE


def _limits(source: Any) -> list[str]:
    return [str(limit) for limit in source.connector.budget.limits]
