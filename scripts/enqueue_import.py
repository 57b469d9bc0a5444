"""Start an import, from any folder: python scripts/enqueue_import.py [SOURCE] [--wait] [--inline] [--fresh]."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.chdir(ROOT)  # .env, data/ and sources.py are found from here
sys.path.insert(0, str(ROOT))

from workers.cli import main  # noqa: E402
from workers.cli.origin import Door  # noqa: E402
from workers.cli.run import run  # noqa: E402

if __name__ == "__main__":
    main(run, Door("script", creates_models=True), name="enqueue_import.py")
