"""A connector's options: the old name of the timeout, the credentials that its requests carry."""

import pytest
from requests.auth import HTTPDigestAuth

from workers import Connector, Limit
from workers.text.secret_names import is_secret, is_secret_parameter

LIMITS = [Limit(10, seconds=1)]


def connector(base_url="https://api.example.com", **options):
    return Connector("options", base_url=base_url, limits=LIMITS, **options)


def test_the_timeout_has_its_unit_in_its_name():
    assert connector(timeout_seconds=7).timeout_seconds == 7
    assert connector().timeout_seconds == 30  # SLUICE_REQUEST_TIMEOUT_SECONDS


def test_the_old_name_of_the_timeout_is_accepted_with_a_warning():
    with pytest.warns(DeprecationWarning, match="timeout_seconds"):
        old = connector(timeout=7)
    with pytest.warns(DeprecationWarning, match="timeout_seconds"):
        assert old.timeout == old.timeout_seconds == 7
    with pytest.warns(DeprecationWarning, match="timeout_seconds"):
        old.timeout = 8
    assert old.timeout_seconds == 8


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"headers": {"Accept": "text/plain", "X-Shop": "north"}}, False),
        ({"base_url": "https://api.example.com/?expand=customers"}, False),
        ({"headers": {"Authorization": "Bearer abcdefgh"}}, True),
        ({"headers": {b"X-Api-Key": b"abcdefgh"}}, True),
        ({"headers": {"X-Partner-Key": "abcdefgh"}}, True),
        ({"base_url": "https://api.example.com/?api_key=abcdefgh"}, True),
        ({"auth": ("user", "password")}, True),
        ({"auth": HTTPDigestAuth("user", "password")}, True),
        ({"secrets": "abcdefgh"}, True),
    ],
)
def test_a_connector_knows_whether_its_requests_carry_credentials(options, expected):
    assert connector(**options).sends_credentials is expected


@pytest.mark.parametrize(
    ("name", "anywhere", "in_a_header"),
    [
        ("Authorization", True, True),
        ("Proxy-Authorization", True, True),
        ("X-Api-Key", True, True),
        ("X-Shopify-Access-Token", True, True),
        ("apiKey", True, True),
        ("client_secret", True, True),
        ("Cookie", True, True),
        ("key", True, True),
        ("X-Partner-Key", False, True),
        ("sort_key", False, True),
        ("X-Auth-User", False, True),
        ("page_token", False, False),
        ("next_cursor", False, False),
        ("Idempotency-Key", False, False),
        ("author", False, False),
        ("Accept", False, False),
        ("external_id", False, False),
    ],
)
def test_the_name_decides_whether_a_value_is_a_secret(name, anywhere, in_a_header):
    assert (is_secret(name), is_secret(name, header=True)) == (anywhere, in_a_header)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("key", "price", False), ("key", "AAExampleKey", True), ("token", "abc", True), ("sort", "AAExampleKey", False)],
)
def test_a_parameter_named_key_is_a_secret_only_if_its_value_is_long(name, value, expected):
    assert is_secret_parameter(name, value) is expected
