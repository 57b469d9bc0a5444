"""The examples of docs/testing.md run as tests of a user's project: by pytest, in a process of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.machine import ROOT

BLOCK = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_documented_tests_pass_in_a_project_of_their_own(tmp_path: Path) -> None:
    # Given a project with the files of the page
    blocks = BLOCK.findall((ROOT / "docs" / "testing.md").read_text())
    for name, code in blocks:
        (tmp_path / name).write_text(code)

    # When pytest runs them, with settings around that must not reach them
    variables = {"PYTHONPATH": str(ROOT), "SLUICE_DATABASE_URL": "sqlite:////nowhere/sluice.db"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False
    )

    # Then
    assert [name for name, _ in blocks] == ["test_sources.py", "test_limiter.py"]
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "data").exists()
