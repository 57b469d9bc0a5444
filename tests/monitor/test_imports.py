"""A worker host has no Streamlit: nothing outside the monitor needs it, and neither does the password command."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.structure.test_layers import imports, package

#: Modules outside the monitor that can import it, inside a function.
LAZY = {"workers.cli.processes"}
#: A monitor module that needs neither Streamlit nor Starlette.
WITHOUT_STREAMLIT = {"workers.monitor.access.password", "workers.monitor.access"}

#: Imports a module as on a host without the extra `monitor`.
IMPORT = """
import sys
for name in ("streamlit", "starlette", "itsdangerous", "pandas", "altair", "pyarrow"):
    sys.modules[name] = None
import importlib
importlib.import_module(sys.argv[1])
"""


def test_only_the_command_that_serves_the_page_imports_the_monitor() -> None:
    modules = package("workers")
    users = {
        name: {i for i in imports(tree, name, set(modules)) if i.startswith("workers.monitor")} - WITHOUT_STREAMLIT
        for name, tree in modules.items()
        if not name.startswith("workers.monitor")
    }
    assert {name for name, found in users.items() if found} <= LAZY


@pytest.mark.parametrize(
    "module",
    [
        *("workers.cli.command_line", "workers.cli.password", "workers.cli.processes", "workers.cli.doctor"),
        *("workers.monitor", "workers.engine.actors", "workers.reports.health", "workers.processes.worker_supervisor"),
    ],
)
def test_a_host_without_the_extra_imports_the_rest(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, module], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
