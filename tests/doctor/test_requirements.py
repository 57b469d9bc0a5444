"""The doctor compares installed packages with what Sluice needs: versions of every form, extras, broken metadata."""

from collections.abc import Callable
from pathlib import Path

import pytest

from workers.doctor import machine_checks
from workers.doctor.finding import Finding


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Make a package look installed: its name, and the version that its metadata states."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, version: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-0.dist-info"
        folder.mkdir()
        stated = f"Version: {version}\n" if version else ""
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\n{stated}")

    return install


def check(*wanted: str) -> Finding:
    [finding] = machine_checks.packages(list(wanted))
    return finding


@pytest.mark.parametrize(
    ("version", "bound", "fits"),
    [
        ("1.0", "==1.*", True),
        ("1.10", ">=1.9", True),
        ("10.0", "<9", False),
        ("2.0.post1", ">=2,<2.1", True),
        ("2.0.dev3", ">=2", False),
        ("3.0rc1", ">=3", False),
        ("3.1rc1", ">=3", True),
        ("3.1b2", "<3.1", False),
        ("4.2.1+cu118", "==4.2.1", True),
        ("4.2.1+cu118", "<4.2.1", False),
        ("1!1.0", ">=2024.1", True),
        ("2026.10", "~=2026.2", True),
        ("5.0.3", "!=5.0.3,>=5", False),
        ("v6.1", ">=6", True),
    ],
)
def test_a_version_of_any_form_is_compared_as_pip_compares_it(
    install: Callable[[str, str], None], version: str, bound: str, fits: bool
) -> None:
    install("odd-package", version)

    finding = check(f"odd-package{bound}")

    assert (finding.level == "ok") is fits, finding.what


@pytest.mark.parametrize("version", ["", "unknown", "2004d (HEAD)"])
def test_a_version_that_cannot_be_compared_is_an_error_and_no_traceback(
    install: Callable[[str, str], None], version: str
) -> None:
    install("odd-package", version)

    finding = check("odd-package>=1")

    assert finding.level == "error"
    assert "odd-package" in finding.what


def test_a_package_of_an_extra_is_checked_only_where_it_is_installed(install: Callable[[str, str], None]) -> None:
    wanted = ["missing-page>=1; extra == 'monitor'", "odd-package[auth]>=2; extra == 'monitor' and os_name != 'nt'"]
    assert check(*wanted).level == "ok"

    install("odd-package", "1.0")

    assert check(*wanted).level == "error"


def test_a_package_of_another_system_is_not_missed() -> None:
    assert check("missing-package>=1; sys_platform == 'win32'", "missing-too; python_version < '3'").level == "ok"


@pytest.mark.parametrize("extra", ["monitor", "postgres", "oidc", "embedded"])
def test_a_clone_knows_its_requirements_with_their_extras(extra: str) -> None:
    wanted = machine_checks._own_requirements()

    assert any(text.startswith("dramatiq") and "extra" not in text for text in wanted)
    assert any(f"extra == '{extra}'" in text for text in wanted)
    assert check(*wanted).level == "ok"
