"""No kind of secret, in no place of a response or an exception, reaches logs, pages, the database or files."""

import contextlib
import io
import json
import logging
import re
from base64 import b64encode
from html import escape
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

import pytest
import requests
from click.testing import CliRunner
from peewee import CharField, Model

from tests.helpers import model_imports
from tests.helpers.pages import draw, html
from workers import ConfigurationError, Connector, Limit, path, testing
from workers.cli.command_line import cli
from workers.connections import database
from workers.log import JsonLines, Lines
from workers.messaging import recent_errors
from workers.monitor.readings import failed_csv
from workers.records.tables import RunItem
from workers.settings import get_settings
from workers.text import known_secrets
from workers.text.redaction import redact

KEY = "K-12345678/q"
WORDS = "correct horse battery staple"
SHORT = "a1B2c3"
LIMITS = [Limit(10_000, seconds=1)]

SPELLINGS = {
    "as-it-is": str,
    "percent": lambda text: quote(text, safe=""),
    "plus": quote_plus,
    "json": lambda text: json.dumps(text).replace("/", "\\/")[1:-1],
    "json-units": lambda text: "".join(f"\\u{ord(one):04x}" for one in text),
    "html": lambda text: escape(text).replace("/", "&#x2F;"),
    "repr": lambda text: repr(text.encode())[2:-1],
    "base64": lambda text: b64encode(f"user:{text}".encode()).decode(),
}


class Renewing(requests.auth.AuthBase):
    """A token that is another one for each request."""

    def __init__(self):
        self.token, self.refresh_token, self.count = "first-token-0", "refresh-0-abcdef", 0

    def __call__(self, prepared):
        self.count += 1
        self.token, self.refresh_token = f"renewed-token-{self.count}", f"refresh-{self.count}-abcdef"
        prepared.headers["Authorization"] = f"Bearer {self.token}"
        return prepared


class Nested(requests.auth.AuthBase):
    """A secret that is used, and not sent."""

    def __init__(self):
        self.client = type("Client", (), {})()
        self.client.client_secret = KEY

    def __call__(self, prepared):
        return prepared


#: What a connector, or each of its requests, holds: the connector's options, and the details' request.
KINDS = {
    "a header": ({"headers": {"X-Api-Key": KEY}}, {}),
    "a header of several words": ({"headers": {"X-Secret": WORDS}}, {}),
    "a bearer token": ({"headers": {"Authorization": f"Bearer {KEY}"}}, {}),
    "a short header": ({"headers": {"X-Api-Key": SHORT}}, {}),
    "a password": ({"auth": ("user", KEY)}, {}),
    "a password of several words": ({"auth": ("user", WORDS)}, {}),
    "a short password": ({"auth": ("user", SHORT)}, {}),
    "a key as the user": ({"auth": (KEY, "")}, {}),
    "a token that is renewed": ({"auth": Renewing()}, {}),
    "a secret that signs": ({"auth": Nested()}, {}),
    "a parameter": ({}, {"params": {"api_key": KEY}}),
    "a parameter called key": ({}, {"params": {"key": KEY}}),
    "a parameter of several words": ({}, {"params": {"secret": WORDS}}),
    "a request's header": ({}, {"headers": {"Authorization": f"Token {KEY}"}}),
    "a request's auth": ({}, {"auth": ("user", KEY)}),
    "a cookie": ({}, {"cookies": {"session": KEY.replace("/", "-")}}),
    "a form": ({}, {"method": "POST", "data": {"client_secret": KEY}}),
    "a JSON body": ({}, {"method": "POST", "json": {"auth": {"password": WORDS}}}),
    "a number in a JSON body": ({}, {"method": "POST", "json": {"pin": 90417736}}),
    "the base URL's query": ({"query": f"?api_key={quote(KEY, safe='')}"}, {}),
    "the base URL's path": ({"path": "/bot123456:AAExampleKey0123"}, {}),
    "a path that is named": ({"secrets": [KEY]}, {"path": quote(KEY, safe="")}),
    "short, and named": ({"secrets": SHORT}, {"path": SHORT}),
    "a path that is not named": ({}, {"path": "AAExampleKey0123456789"}),
}
#: For these the page is drawn, too: it shows what the database and Redis hold, and takes a second.
DRAWN = ("a header of several words", "a token that is renewed", "a path that is named")
#: The secret of a kind, where it is another than what the options hold.
SECRET_OF = {
    "a number in a JSON body": "90417736",
    "a token that is renewed": "renewed-token-",
    "the base URL's path": "AAExampleKey0123",
    "a path that is not named": "AAExampleKey0123456789",
}


def _secret(kind):
    if kind in SECRET_OF:
        return SECRET_OF[kind]
    return next(one for one in (KEY, WORDS, SHORT, KEY.replace("/", "-")) if one in _all_text(KINDS[kind]))


def _all_text(options):
    text = json.dumps(options, default=lambda one: json.dumps(vars(one), default=vars))
    return text + text.replace("%2F", "/")


@contextlib.contextmanager
def repeating(secret):
    """Serve an API that repeats a secret, or what it was sent, in each place: the last part of a path says where."""

    asked = []

    def answer(request):
        where = request.path.rpartition("/")[2]
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        repeated = token if secret == "renewed-token-" else secret
        asked.append((request.target, request.body.decode()))
        place, _, spelling = where.partition(".")
        if where == "things":
            return {"data": [{"external_id": one} for one in PLACES], "next_page_url": None}
        address, media = f"/elsewhere?to={quote(repeated)}", f"text/{quote(repeated, safe='')}"
        refusal = json.dumps({"message": f"the key {SPELLINGS.get(spelling, str)(repeated)} may not"})
        places = {
            "message": testing.Response(422, refusal.replace("/", "\\/"), {"Content-Type": "application/json"}),
            "location": testing.Response(302, {}, {"Location": address}),
            "type": testing.Response(200, f"<p>{repeated}", {"Content-Type": media}),
            "status": 404,
            "long": testing.Response(422, {"message": f"{'x' * 480} {repeated} {'y' * 5_000}"}),
        }
        return places.get(place, {"said": repeated})

    with testing.api(answer) as server:
        yield server.url, asked


PLACES = [*(f"message.{one}" for one in SPELLINGS), "location", "type", "status", "long", "bad", "bug", "requests"]


def _thing(sent, url):
    """Return a model whose own code repeats what the API said, where its id says so."""

    class Thing(model_imports.Detailed, Model):
        external_id = CharField(unique=True)

        class Meta:
            database = database.db
            table_name = "things"

        def get_api_detail_request(self):
            options = dict(sent)
            address = path(options.pop("path", "v1"), self.external_id)
            return requests.Request(options.pop("method", "GET"), address, **options)

        def populate_from_api_response(self, data):
            if self.external_id == "bad":
                raise ValueError(f"no log-in as {data!r}")
            if self.external_id == "bug":
                raise RuntimeError(f"GET {url}/{sent.get('path', 'v1')}/bug said {data['said']}")
            address = f"http://127.0.0.1:1/{sent.get('path', 'v1')}?api_key={quote(data['said'])}"
            requests.get(address, timeout=1)

    return Thing


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_leaves_by_no_door(kind, import_from, house):
    house.setenv("SLUICE_BACKOFF_SECONDS", "0")
    get_settings.cache_clear()
    known_secrets._owned.clear()  # those of the other kinds, which hold the same secret
    options, sent = dict(KINDS[kind][0]), KINDS[kind][1]
    secret = _secret(kind)
    logged, as_json = io.StringIO(), io.StringIO()
    with (
        repeating(secret) as (url, asked),
        _logged(logged, Lines("%(message)s")),
        _logged(as_json, JsonLines()),
    ):
        base = url + options.pop("path", "") + "/" + options.pop("query", "")
        connector = Connector("things", base_url=base, limits=LIMITS, **options)
        source = model_imports.register(_thing(sent, url), base, connector=connector, lanes=1)
        with recent_errors.kept("test"):
            run = model_imports.imported()
            logging.getLogger("x").warning("%r", [connector, source, source.model, run, vars(run), get_settings()])
        run_id = str(run.id)
        commands = [["status"], ["status", run_id], ["status", run_id, "--failed", "--last", "50"], ["sources"]]
        commands += [["doctor", "--ask"], ["plan"], ["plan", "--json"], ["status", run_id, "--failed", "--json"]]
        printed = {" ".join(words): CliRunner().invoke(cli, words).output for words in commands}
        shown = html(draw("run", run=run_id)) + html(draw("system")) if kind in DRAWN else ""

    failed = {item.external_id: item.failure_reason for item in RunItem.select()}
    doors = {
        "the log": logged.getvalue(),
        "the log as JSON": as_json.getvalue(),
        "the page": shown,
        "the file": "".join(failed_csv.csv_parts(run.id)),
        "the last errors": str(recent_errors.recent_errors(100)),
        **{table: str(list(database.db.execute_sql(f"SELECT * FROM {table}"))) for table in database.db.get_tables()},
        **printed,
    }
    assert set(failed) == set(PLACES) and run.failed_count == len(PLACES)
    assert asked and failed["status"] == "things details of status answered 404"
    for door, text in doors.items():
        assert not _found(secret, text), (door, _found(secret, text))
    if kind not in SECRET_OF:
        assert failed["message.as-it-is"] == "things details of message.as-it-is answered 422: the key *** may not"


def _found(secret, text):
    """Return where a text holds a secret in any spelling."""
    inner = [secret, *(spell(secret) for name, spell in SPELLINGS.items() if name != "base64")]
    spelled = [re.escape(one) for one in dict.fromkeys(inner)] + [re.escape(SPELLINGS["base64"](secret)[8:-3])]
    if secret == SHORT:
        spelled = [rf"(?<!\w){one}(?!\w)" for one in spelled]
    if secret == "AAExampleKey0123456789":  # not named as a secret: it is found in addresses alone
        spelled = [rf"/{secret}[/?\s]"]
    return [text[max(0, m.start() - 60) : m.end() + 40] for one in spelled for m in [re.search(one, text)] if m]


@contextlib.contextmanager
def _logged(stream, form):
    handler = logging.StreamHandler(stream)
    handler.setFormatter(form)
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


# --- the connector ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secrets", [["ab"], "ab", [""], "  ", [7], 7, None, [None], {"a": "b"}, [b"bytes-secret"]])
def test_a_secret_that_cannot_be_hidden_is_refused(environment, secrets):
    with pytest.raises(ConfigurationError, match=r"Connector 'api': (secrets must be|a secret must have at least 3)"):
        Connector("api", base_url="http://127.0.0.1:1", limits=LIMITS, secrets=secrets)


@pytest.mark.parametrize("secrets", ["K-12345678", ["K-12345678"], ("K-12345678", "abc"), {"K-12345678"}])
def test_a_secret_is_hidden_while_its_connector_lives(environment, secrets):
    connector = Connector("api", base_url="http://127.0.0.1:1", limits=LIMITS, secrets=secrets)

    assert redact("it is K-12345678") == "it is ***"
    assert "K-1234" not in repr(connector)


QUERIES = {
    "it is sent": ("?api_key=K%2F1&v=2", {}, [("api_key", "K/1"), ("v", "2")]),
    "the request names others": ("?api_key=K", {"params": {"page": 2}}, [("api_key", "K"), ("page", "2")]),
    "the request names it": ("?api_key=K&v=2", {"params": {"v": 3}}, [("api_key", "K"), ("v", "3")]),
    "the request names it in a list": ("?v=2", {"params": [("v", "3"), ("v", "4")]}, [("v", "3"), ("v", "4")]),
    "the request names it in its address": ("?api_key=K", {"url": "x?api_key=L"}, [("api_key", "L")]),
    "the request's address has a fragment": ("?api_key=K", {"url": "x?a=1#f"}, [("a", "1"), ("api_key", "K")]),
    "the request's parameters are text": ("?api_key=K", {"params": "a=1"}, [("api_key", "K"), ("a", "1")]),
    "it has no value": ("?flag&api_key=", {}, [("flag", ""), ("api_key", "")]),
    "there is none": ("", {"params": {"a": 1}}, [("a", "1")]),
}


@pytest.mark.parametrize(("query", "asked", "sent"), QUERIES.values(), ids=QUERIES)
def test_a_query_of_the_base_url_is_sent_with_each_request(environment, query, asked, sent):
    connector = Connector("api", base_url=f"http://127.0.0.1:1/api/{query}", limits=LIMITS)

    prepared = connector._prepare(requests.Request("GET", **({"url": "x"} | asked)))

    assert urlsplit(prepared.url).path == "/api/x"
    assert parse_qsl(urlsplit(prepared.url).query, keep_blank_values=True) == sent


@pytest.mark.parametrize(
    ("base_url", "said"),
    [
        ("ftp://u:hunter2222@h/", "must be an http"),
        ("http://h/x?api_key=K-12345678#f", "has a fragment"),
        ("http://h/bot12:AAExampleKey0/../x", "has a segment"),
    ],
)
def test_a_base_url_that_is_refused_is_not_quoted_with_its_secrets(environment, base_url, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        Connector("api", base_url=base_url, limits=LIMITS)

    assert not any(secret in str(caught.value) for secret in ("hunter2222", "K-12345678", "AAExampleKey0"))
