"""Compare random (model, batch) pairs with the driver: python -m tests.records.generated [--pairs 2000] [--seed 1]."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from tests.helpers.field_kinds import prepare
from tests.helpers.field_pairs import examine
from tests.helpers.postgres_clusters import Cluster, ClusterError
from workers.connections import database

_DATABASES = {"sqlite": ["sqlite"], "postgres": ["postgres"], "both": ["sqlite", "postgres"]}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--pairs", default=2000, show_default=True, type=click.IntRange(1), help="How many on each database.")
@click.option("--seed", default=1, show_default=True, help="Another seed makes other pairs.")
@click.option("--first", default=1, show_default=True, type=click.IntRange(1), help="The first pair of the seed.")
@click.option("--database", "chosen", default="both", show_default=True, type=click.Choice(list(_DATABASES)),
              help="Where to write. Postgres is started in a cluster of its own.")  # fmt: skip
def main(*, pairs: int, seed: int, first: int, chosen: str) -> None:
    """Write random batches into random models, as the package does and row by row as the driver does, and compare.

    Exit codes: 0 all pairs are the same, 1 one differs, 2 usage, 3 Postgres did not come up.
    """
    differing = 0
    try:
        for name in _DATABASES[chosen]:
            differing += _examine(name, [f"{seed}:{n}" for n in range(first, first + pairs)])
    except ClusterError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(3)
    sys.exit(1 if differing else 0)


def _examine(name: str, seeds: list[str]) -> int:
    begun = time.monotonic()
    with _opened(name):
        prepare()
        pairs, rows, reports = examine(seeds, say=print)
    print(f"{name}: {pairs:,} pairs, {rows:,} rows, {len(reports):,} pairs differ ({time.monotonic() - begun:.0f} s)")
    return len(reports)


@contextmanager
def _opened(name: str) -> Iterator[None]:
    if name == "postgres":
        with Cluster("max_connections=200") as cluster, _connected(cluster.url):
            yield
        return
    with tempfile.TemporaryDirectory(prefix="sluice-fields-") as folder, _connected(f"sqlite:///{folder}/fields.db"):
        yield


@contextmanager
def _connected(url: str) -> Iterator[None]:
    database.connect(url)
    try:
        with database.connection():
            yield
    finally:
        database.disconnect()


if __name__ == "__main__":
    main()
