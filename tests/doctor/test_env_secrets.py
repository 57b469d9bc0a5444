"""Doctor finds a .env file with a secret by the names of its variables, as the rest of Sluice does."""

import pytest

from workers.doctor.machine_checks import _holds_a_secret


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("SLUICE_MONITOR_PASSWORD=correct-horse", True),
        ("export SHOP_API_KEY='abc'", True),
        ("SHOP_KEY=abc", True),
        ("# API_TOKEN=abc", True),
        ("CLIENT_SECRET = abc", True),
        ("PIN=1234", True),
        ("SLUICE_REDIS_URL=redis://user:password@cache/0", True),
        ("SLUICE_REDIS_URL=redis://cache/0", False),
        ("SLUICE_MONITOR_PASSWORD=", False),
        ("SLUICE_MONITOR_SESSION_HOURS=8", False),
        ("SLUICE_LANES=16", False),
        ("SORT_ORDER=name", False),
    ],
)
def test_a_line_of_env_is_a_secret_by_the_name_of_its_variable(line, expected):
    assert _holds_a_secret(f"A=1\n{line}\nB=2\n") is expected
