"""Run fleets under faults, seed by seed: python -m tests.faults [--seeds 20] [--database both]. From any folder."""

import json
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console
from rich.table import Table

from benchmarks.fleet import FleetError
from tests.faults.facts import Facts, breaches
from tests.faults.fault_run import fault_run
from tests.helpers.postgres_clusters import Cluster, ClusterError

_DATABASES = {"sqlite": ["sqlite"], "postgres": ["postgres"], "both": ["sqlite", "postgres"]}
_WIDTH = 118


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(1), help="How many seeds.")
@click.option("--first", default=1, show_default=True, type=click.IntRange(1), help="The first of them.")
@click.option("--database", default="both", show_default=True, type=click.Choice(list(_DATABASES)),
              help="What each seed runs on. Postgres is started in a cluster of its own.")  # fmt: skip
@click.option("--short", is_flag=True, help="160 items and three or four faults, as in `make test`.")
@click.option("--items", type=click.IntRange(50), help="How many items, instead of 1,000 or 160.")
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
@click.option("--keep", is_flag=True, help="Keep the fleets' folders, with their logs.")
def main(*, seeds: int, first: int, database: str, short: bool, items: int | None, as_json: bool, keep: bool) -> None:
    """Run imports with real processes, kill and stop these by a schedule for each seed, and look what came of it.

    Exit codes: 0 every property held, 1 one did not, 2 usage, 3 a fleet, or Postgres, did not come up.
    """
    signal.signal(signal.SIGTERM, _leave)
    found: list[Facts] = []
    try:
        with ExitStack() as stack:
            clusters: dict[str, Cluster | None] = {"sqlite": None}
            if "postgres" in _DATABASES[database]:
                clusters["postgres"] = stack.enter_context(Cluster("max_connections=200"))
            for seed in range(first, first + seeds):
                for name in _DATABASES[database]:
                    _say(f"seed {seed} on {name}")
                    facts = fault_run(
                        seed, cluster=clusters[name], short=short, items=items, keep=keep, say=lambda t: _say(f"  {t}")
                    )
                    found.append(facts)
                    _say(_sentence(facts))
    except (FleetError, ClusterError) as error:
        _say(f"Error: {error}")
        sys.exit(3)
    finally:
        if found:
            print(json.dumps([_told(facts) for facts in found], indent=1)) if as_json else _print(found)
    sys.exit(any(breaches(facts) for facts in found))


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _sentence(facts: Facts) -> str:
    broken = breaches(facts)
    how = f"BROKEN: {'; '.join(broken)}. The logs are in {facts.folder}" if broken else "every property held"
    return (
        f"seed {facts.seed} on {facts.database}: {len(facts.struck)} faults in {facts.seconds:.0f} s, "
        f"{facts.extra_items + facts.extra_pages} extra requests; {how}"
    )


def _told(facts: Facts) -> dict[str, object]:
    return asdict(facts) | {
        "extra_items": facts.extra_items,
        "most_extra_items": facts.most_extra_items,
        "extra_pages": facts.extra_pages,
        "most_extra_pages": facts.most_extra_pages,
        "breaches": breaches(facts),
    }


def _print(found: list[Facts]) -> None:
    table = Table("seed", "database", title="Fault runs")
    for heading in ("faults", "seconds", "items", "429", "fullest window", "extra details of", "extra pages of"):
        table.add_column(heading, justify="right")
    table.add_column("held")
    for facts in found:
        table.add_row(
            str(facts.seed),
            facts.database,
            str(len(facts.struck)),
            f"{facts.seconds:.0f}",
            f"{facts.succeeded:,} of {facts.shape.items:,}",
            str(facts.rejected),
            f"{facts.fullest:.0%}",
            f"{facts.extra_items} of {facts.most_extra_items}",
            f"{facts.extra_pages} of {facts.most_extra_pages}",
            "no" if breaches(facts) else "yes",
        )
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    for facts in found:
        for sentence in breaches(facts):
            console.print(f"seed {facts.seed} on {facts.database}: {sentence} ({facts.folder})", soft_wrap=True)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main(prog_name="python -m tests.faults")
