"""Find the Postgres that the tests start: the one that TEST_POSTGRES names, else the newest of this machine."""

import os
import shutil
from pathlib import Path


def postgres_folder() -> Path | None:
    """Return the folder of its programs (`initdb`, `pg_ctl`, `postgres`); None where there is none."""
    if chosen := os.environ.get("TEST_POSTGRES"):
        return Path(chosen)
    if found := installed():
        return found[-1]
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def installed() -> list[Path]:
    """Return the folders of all that Debian's packages have installed, the newest last."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return sorted((path.parent for path in found), key=lambda folder: int(folder.parent.name))
