"""What an API says of a refusal in its own words is shown, whatever its status; a page for people is not."""

import pytest
import requests

from tests.helpers.connectors import get
from tests.helpers.fixed_response import saying
from workers.errors import PermanentError, RetryableError

BODIES = {
    "message": (b'{"message": "Bad credentials", "documentation_url": "https://x"}', "Bad credentials"),
    "OAuth 2": (b'{"error": "invalid_token", "error_description": "The token expired"}', "The token expired"),
    "a word": (b'{"error": "forbidden"}', "forbidden"),
    "Google": (b'{"error": {"code": 403, "message": "Quota exceeded", "status": "DENIED"}}', "Quota exceeded"),
    "RFC 9457": (b'{"type": "about:blank", "title": "Forbidden", "detail": "You lack read"}', "You lack read"),
    "a title alone": (b'{"title": "Forbidden", "status": 403}', "Forbidden"),
    "GraphQL": (b'{"errors": [{"message": "Not for you"}, {"message": "b"}]}', "Not for you"),
    "JSON:API": (b'{"errors": [{"status": "403", "title": "Forbidden", "detail": "No scope"}]}', "No scope"),
    "plain errors": (b'{"errors": ["No scope", "b"]}', "No scope"),
    "Shopify": (b'{"errors": "[API] Invalid API key"}', "[API] Invalid API key"),
    "a form": (b'{"errors": {"name": ["is blank", "is short"], "price": ["x"]}}', "name: is blank"),
    "FastAPI": (b'{"detail": [{"loc": ["a"], "msg": "field required"}]}', "field required"),
    "Salesforce": (b'[{"message": "Session expired", "errorCode": "INVALID_SESSION_ID"}]', "Session expired"),
    "Apigee": (b'{"fault": {"faultstring": "Invalid key", "code": 7}}', "Invalid key"),
    "an empty message, and another": (b'{"message": "", "error": "denied"}', "denied"),
    "text": (b"Access denied\n", "Access denied"),
    "a JSON string": (b'"Access denied"', "Access denied"),
    "several lines": (b'{"message": "One\\nTwo"}', "One"),
    "HTML": (b"<html><title>403</title></html>", ""),
    "HTML in JSON": (b'{"message": "<html>..."}', ""),
    "HTML after a blank": (b"\n  <!DOCTYPE html>\n<html>", ""),
    "lines of text": (b"Sorry\nWe are down", ""),
    "cut JSON": (b'{"message": "Ba', ""),
    "numbers": (b'{"error": 7, "message": null, "errors": []}', ""),
    "nothing": (b"", ""),
    "bytes": (b"\xff\xfe\x00", ""),
}


@pytest.mark.parametrize("status", [401, 403, 400, 500])
@pytest.mark.parametrize("api", BODIES)
def test_the_api_s_own_message_is_shown(connect, api, status):
    body, message = BODIES[api]
    with saying(status, body) as server, pytest.raises((PermanentError, RetryableError)) as caught:
        get(connect(server.url), "api/x")

    said = f"the GET request answered {status}"
    if status in (401, 403):
        said += ": check the credentials of connector 'api'"
        expected = f"{said}. The API says: {message}" if message else said
    else:
        expected = f"{said}: {message}" if message else said
    assert str(caught.value) == expected


def test_a_challenge_s_description_is_shown_where_the_body_says_nothing(connect):
    challenge = 'Bearer realm="x", error="invalid_token", error_description="The access token expired"'
    with saying(401, b"<html>", WWW_Authenticate=challenge) as server, pytest.raises(PermanentError) as caught:
        get(connect(server.url))

    assert str(caught.value).endswith("'api'. The API says: The access token expired")


def test_a_message_is_shown_without_secrets_and_cut(connect):
    body = b'{"message": "key s3cret-value-1 may not ' + b"x" * 1_900 + b'"}'
    with saying(403, body) as server, pytest.raises(PermanentError) as caught:
        connector = connect(server.url, headers={"X-Api-Key": "s3cret-value-1"})
        connector.send(requests.Request("GET", "x"), connector.permit_client())

    message = str(caught.value).partition("The API says: ")[2]
    assert message.startswith("key *** may not xx")
    assert len(message) == 1_000
