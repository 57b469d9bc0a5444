"""Before the processes start: what is in the way is one sentence with the fix."""

import socket
import subprocess
import sys

import pytest

from tests.helpers.machine import ROOT, free_port
from workers import ConfigurationError
from workers.processes import preflight


def test_a_port_in_use_names_the_setting_for_another(environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"Port {port} for the page .* set SLUICE_MONITOR_PORT"):
            preflight.check_port("127.0.0.1", port, "the page", "SLUICE_MONITOR_PORT")

    preflight.check_port("127.0.0.1", port, "the page", "SLUICE_MONITOR_PORT")


def test_a_data_folder_that_cannot_be_written_is_named_with_its_setting(environment, tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(ConfigurationError, match=r"cannot be written .* set SLUICE_DATA_DIR"):
        preflight.check_folder(tmp_path / "file" / "data")


def test_something_else_where_redis_should_be_is_said_before_anything_starts(environment):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        environment.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{other.getsockname()[1]}/0")
        environment.setenv("SLUICE_MOCK_PORT", str(free_port()))
        environment.setenv("SLUICE_MONITOR_PORT", str(free_port()))
        prepare = [sys.executable, str(ROOT / "scripts" / "prepare.py")]

        done = subprocess.run(prepare, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "SLUICE_REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_that_is_too_old_is_told_so_by_make(tmp_path):
    # Given a python3 that says it is 3.9
    old = tmp_path / "python3"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.version_info = (3, 9, 1); exec(sys.argv[2])' \"$@\"\n"
    )
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "requirements.txt").write_text("")

    done = subprocess.run(
        ["make", "run", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode != 0
    assert "Python 3.9 is too old for Sluice: install 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
