"""Ids that mean something in an address: each item asks for its own resource, or nothing is sent."""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest
import requests
from peewee import CharField, Field, ForeignKeyField, IntegerField, Model, TextField, UUIDField
from urllib3.util.url import _encode_target

from workers import Connector, ImportSource, Limit, db, path, testing
from workers.control import runner
from workers.errors import ConfigurationError, PermanentError
from workers.records import schema
from workers.records.tables import ItemStatus, Run, RunItem
from workers.sources import address_probe
from workers.sources.registry import Registry

SECRET = "s3cret-password"
AWKWARD = [
    *(
        "A",
        "A#1",
        "A?x=1",
        "A/B",
        "A/../B",
        "/A",
        "A/",
        "//evil.example/x",
        "50%25",
        "50%",
        "%2e%2e",
        "%2F",
        "a b",
        " a",
    ),
    *("a&b=c", "a;b", "..;", "a\\b", "..\\stats", "a\tb", "a\n", "a:b", "http:x", "user:pw@host", "Zoë", "．．", "名"),
    *("~-_.", "...", "a+b", '"<>', "{}|^`", "[1]", "%00", "$,=!*'()"),
]


class Answering:
    """Answers each detail with the target it was asked for, and lists the ids it is given."""

    def __init__(self, ids: list[str]) -> None:
        self.url = ""
        self.ids = ids
        self.targets: list[str] = []
        self.credentials: list[str | None] = []

    def answer(self, request: testing.Request) -> object:
        self.targets.append(request.target)
        self.credentials.append(request.headers.get("Authorization"))
        if request.target.startswith("/api/list"):
            return {"data": [{"id": one} for one in self.ids], "next_page_url": None, "total": len(self.ids)}
        return {"answer_of": request.target}


@contextlib.contextmanager
def answering(ids: list[str] | None = None) -> Iterator[Answering]:
    api = Answering(ids or [])
    with testing.api(api.answer) as server:
        api.url = server.url
        yield api


@pytest.fixture
def connect(environment: pytest.MonkeyPatch, redis_server: str) -> Callable[..., Connector]:
    environment.setenv("SLUICE_REDIS_URL", redis_server)

    def make(base_url: str) -> Connector:
        return Connector("api", base_url=base_url, limits=[Limit(1000, seconds=60)], timeout_seconds=5.0)

    return make


def ask(connector: Connector, url: str, **options: Any) -> Any:
    caller = connector.permit_client(run_id=1)
    try:
        return connector.get_json(requests.Request("GET", url, **options), caller)
    finally:
        caller.flush()


# --- path -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "ids", "found"),
    [
        ("api/items", ["7"], "api/items/7"),
        ("api/items", [7], "api/items/7"),
        ("api/items/", [-7], "api/items/-7"),
        ("/api/items", ["a/b"], "/api/items/a%2Fb"),
        ("/", ["a"], "/a"),
        ("", ["a:b"], "a%3Ab"),
        ("https://api.example.com/v2/items", ["a?b#c"], "https://api.example.com/v2/items/a%3Fb%23c"),
        ("shops", ["a/b", "items", 7], "shops/a%2Fb/items/7"),
        ("api/items", [UUID(int=1)], "api/items/00000000-0000-0000-0000-000000000001"),
        ("api/caf%C3%A9", ["é"], "api/caf%C3%A9/%C3%A9"),
        ("api", ["50%25"], "api/50%2525"),
    ],
)
def test_an_id_is_one_segment_below_the_address(address, ids, found):
    assert path(address, *ids) == found


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_segment_that_no_client_sends_is_refused_with_its_name_and_the_fix(name):
    with pytest.raises(ValueError, match=r"(?s)the id '\.{0,2}' cannot be sent.*params=") as caught:
        path("api/items", name, "lines")

    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("wrong", [None, True, 1.5, b"a", ["a"]])
def test_what_is_no_id_is_refused(wrong):
    with pytest.raises(TypeError, match="an id in an address is text, a whole number or a UUID"):
        path("api/items", wrong)


@pytest.mark.parametrize("address", ["api/items?a=1", "api/items#a", "api/../items", "api/%2e/items", "http://u:p@h/x"])
def test_an_address_that_would_change_is_refused(address):
    with pytest.raises(ValueError, match="the address "):
        path(address, "7")


def test_an_address_without_an_id_is_a_mistake():
    with pytest.raises(TypeError, match="at least one id"):
        path("api/items")


@pytest.mark.parametrize("name", AWKWARD)
def test_the_server_is_asked_for_the_id_and_for_nothing_else(connect, name):
    with answering() as server:
        ask(connect(server.url), path("api/items", name))

    # Then the one segment below the address is the id, decoded once
    assert [unquote(part) for part in server.targets[0].split("/")] == ["", "api", "items", name]
    # And it was sent as it was quoted
    assert server.targets == ["/" + path("api/items", name)]


# --- what is sent -----------------------------------------------------------------------------------------------------

CLIMBING = [
    *("api/items/../../stats", "api/items/..", "..", "./x", "api/./x", "/api/items/../x", "{url}/api/items/../stats"),
    *("api/items/%2e%2e/x", "api/items/%2E./x", "api/items/.%2e", "api/items/%2e/x", "{url}/api/%2e%2e/stats"),
    *("api/items/..;/x", "api/items/..;v=1/x", "api/items/%2e%2e;a/x", "api/items/..?page=2", "api/items/..#x"),
]
BACKSLASHES = ["api/items/..\\stats", "api\\items", "\\\\127.0.0.2\\x", "{url}\\..\\x", "/\\127.0.0.2/x"]
CONTROL = ["api/items/.\t./stats", "api/items/A\n", "api/it\rems", "\x00api/items", "api/items?a=\nb", "api/items/\x7f"]
USERS = [
    *(f"http://user:{SECRET}@{{host}}/x", f"http://{SECRET}@{{host}}/x", f"//user:{SECRET}@{{host}}/x"),
    *(
        f"http://user:{SECRET}@127.0.0.2/x",
        f"HTTP://{{host}}@user:{SECRET}@{{host}}/x",
        f"http:/user:{SECRET}@{{host}}/x",
    ),
    *(f"user:{SECRET}@{{host}}/x", "http://@{host}/x"),
]
OTHERS = [
    "//127.0.0.2/x",
    "http://127.0.0.2/x",
    "https://{host}/x",
    "http://аpi.example/x",
    "http://１２７.0.0.1/x",
    "a:b",
]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *zip(CLIMBING, itertools.repeat("has a segment"), strict=False),
        *zip(BACKSLASHES, itertools.repeat("has a backslash"), strict=False),
        *zip(CONTROL, itertools.repeat("has a control character"), strict=False),
    ],
)
def test_an_address_that_would_ask_for_another_resource_is_not_sent(connect, url, why):
    with answering() as server, pytest.raises(PermanentError, match=why) as caught:
        ask(connect(f"{server.url}/v2"), url.format(url=server.url))

    assert caught.value.failure_class == "contract"
    assert 'path("api/items", id)' in str(caught.value)
    assert server.targets == []


@pytest.mark.parametrize("url", USERS)
def test_credentials_in_an_address_are_not_sent_and_not_told(connect, url):
    with answering() as server, pytest.raises(PermanentError) as caught:
        ask(connect(server.url), url.format(host=server.url.removeprefix("http://")))

    assert caught.value.failure_class == "contract"
    assert SECRET not in str(caught.value)
    assert server.targets == []


@pytest.mark.parametrize("url", USERS[:5])
def test_the_reason_says_where_credentials_belong(connect, url):
    with answering() as server, pytest.raises(PermanentError, match=r"auth=\(user, password\)"):
        ask(connect(server.url), url.format(host=server.url.removeprefix("http://")))


@pytest.mark.parametrize("url", OTHERS)
def test_another_host_however_it_is_spelled_is_not_asked(connect, url):
    with answering() as server, pytest.raises(PermanentError) as caught:
        ask(connect(server.url), url.format(host=server.url.removeprefix("http://")))

    assert caught.value.failure_class == "contract"
    assert server.targets == []


def test_an_auth_object_cannot_lead_elsewhere(connect):
    def climb(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        prepared.url = f"{prepared.url}/../stats"
        return prepared

    with answering() as server, pytest.raises(PermanentError, match="has a segment"):
        ask(connect(server.url), "api/items/1", auth=climb)

    assert server.targets == []


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("{url}/api/items?page=2", "/api/items?page=2"),
        ("{url}/api/items?page=2&after=a%2Fb%3D%3D", "/api/items?page=2&after=a%2Fb%3D%3D"),
        ("{url}/repos/group%2Fproject/items?page=2", "/repos/group%2Fproject/items?page=2"),
        ("{url}/files/a%2F..%2Fb", "/files/a%2F..%2Fb"),
        ("/api/items?next=../x&at=..", "/api/items?next=../x&at=.."),
        ("/api/items?me=a@b.example", "/api/items?me=a@b.example"),
        ("/npm/@scope/pkg", "/npm/@scope/pkg"),
        ("/users/bob@x.example", "/users/bob@x.example"),
        ("/files/v1..2/.hidden/a.", "/files/v1..2/.hidden/a."),
        ("/rates/5%", "/rates/5%25"),
        ("/rates/a%2Fb/5%", "/rates/a%2Fb/5%25"),
        ("/rates?of=5%&after=a%2Fb%3D", "/rates?of=5%25&after=a%2Fb%3D"),
        ("?page=2", "/v2/?page=2"),
        ("", "/v2/"),
        ("shops//items", "/v2/shops//items"),
        ("items/A;", "/v2/items/A;"),
        (" {url}/items", "/items"),
        ("//{host}/api/items", "/api/items"),
        ("/odata/Items('a')?$skip=2", "/odata/Items('a')?$skip=2"),
    ],
)
def test_links_of_real_apis_are_sent_as_they_are(connect, url, target):
    with answering() as server:
        ask(connect(f"{server.url}/v2"), url.format(url=server.url, host=server.url.removeprefix("http://")))

    assert server.targets == [target]


@pytest.mark.parametrize("params", [{"id": "../x"}, {"id": "a/../b?c#d"}, {"id": "a\nb"}])
def test_an_id_given_as_params_is_never_in_the_way(connect, params):
    with answering() as server:
        ask(connect(server.url), "api/items", params=params)

    assert unquote(server.targets[0]) == f"/api/items?id={params['id']}"


@pytest.mark.parametrize(
    ("base_url", "why"),
    [
        ("http://127.0.0.1/api/../v2", "has a segment"),
        ("http://127.0.0.1/%2e%2e", "has a segment"),
        ("http://127.0.0.1\\v2", "backslash"),
        ("http://127.0.0.1:99999", "ValueError|not an address"),
    ],
)
def test_a_base_url_that_is_not_sent_as_written_is_refused_at_once(base_url, why):
    with pytest.raises(ConfigurationError, match=why):
        Connector("api", base_url=base_url, limits=[Limit(1, seconds=1)])


def test_a_host_of_other_letters_is_one_host_in_both_spellings(connect):
    connector = connect("http://bücher.example/v2")

    assert connector._prepare(requests.Request("GET", "x")).url == "http://xn--bcher-kva.example/v2/x"
    assert connector._prepare(requests.Request("GET", "http://xn--bcher-kva.example/x")).url.endswith("/x")
    with pytest.raises(PermanentError, match=r"is not on http://xn--bcher-kva\.example:80"):
        connector._prepare(requests.Request("GET", "http://bucher.example/x"))


PIECES = [
    *(
        "a",
        "b",
        "/",
        "//",
        ".",
        "..",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "\\",
        "?",
        "#",
        ";",
        "%",
        "%25",
        "%252e",
        "@",
        ":",
        "&",
    ),
    *("=", "\t", "\n", " ", "é", "．", "%zz", "%00", "\u2028", "~", "+", "http:", "//h", "[", "]", "\x85", "\xa0"),
]


def generated(seed: int) -> list[str]:
    dice = random.Random(seed)
    return ["".join(dice.choices(PIECES, k=dice.randint(1, 7))) for _ in range(2000)]


def target_of(connector: Connector, url: str) -> str:
    """The target as it is written to the socket."""
    return _encode_target(str(connector._prepare(requests.Request("GET", url)).path_url))


@pytest.mark.parametrize("seed", range(3))
def test_any_id_is_one_segment_and_any_address_is_sent_as_written_or_not_at_all(connect, seed):
    connector = connect("http://127.0.0.1:1/v2")
    sent = 0
    for text in generated(seed):
        if text not in (".", ".."):
            # An id, given to path(), is the last segment
            *above, last = target_of(connector, path("items", text)).split("/")
            assert (above, unquote(last)) == (["", "v2", "items"], text)

        # Raw, as an address, it names what it says, or it is refused
        with contextlib.suppress(PermanentError):
            found, _, query = target_of(connector, text).partition("?")
            meant, _, meant_query = text.partition("#")[0].partition("?")
            if not meant.startswith("//"):
                meant = meant if meant.startswith("/") else f"/v2/{meant}"
                assert [unquote(part) for part in found.split("/")] == [unquote(part) for part in meant.split("/")]
                assert unquote(query) == unquote(meant_query)
                sent += 1
    assert sent > 500


# --- a whole import ---------------------------------------------------------------------------------------------------


class Article(Model):
    external_id = CharField(unique=True)
    answer_of = TextField(null=True)

    class Meta:
        database = db
        table_name = "field_articles"

    def get_external_id(self):
        return self.external_id

    def get_api_detail_request(self):
        return requests.Request("GET", path("api/items", self.external_id))

    def populate_from_api_response(self, data):
        self.answer_of = data["answer_of"]


def source_of(model: type[Any], unique_by: Any = "external_id", base_url: str = "http://127.0.0.1:1") -> ImportSource:
    class Source(ImportSource):
        def get_list_request(self, cursor, per_page):
            return requests.Request("GET", "api/list")

        def create_model_from_list_item(self, item):
            return model(external_id=item["id"])

    Source.name, Source.model, Source.unique_by = "articles", model, unique_by
    Source.connector = Connector("articles", base_url=base_url, limits=[Limit(500, seconds=20)], auth=("u", SECRET))
    return Source()


def test_each_row_holds_its_own_answer_or_fails(house, import_from):
    from tests.helpers import registered_sources

    ids = [name for name in AWKWARD if "\t" not in name] + [".", ".."]
    schema.migrate([Article])
    with answering(ids) as server:
        import_from(server.url)
        registered_sources.SOURCES[:] = [source_of(Article, base_url=server.url)]

        run = runner.run_inline(runner.start("articles", who="test", door="test", send=False))

    rows = {row.external_id: row.answer_of for row in Article.select()}
    # Then only the two that cannot be sent have failed, each with its name
    failed = RunItem.select().where(RunItem.run_id == run.id, RunItem.status == ItemStatus.FAILED)
    assert {item.external_id for item in failed} == {".", ".."}
    assert all(repr(item.external_id) in item.failure_reason for item in failed)
    # And all others hold the answer of their own resource
    assert Run.get_by_id(run.id).succeeded_count == len(ids) - 2
    assert {name: unquote(found.removeprefix("/api/items/")) for name, found in rows.items() if found} == {
        name: name for name in ids if name not in (".", "..")
    }
    # And nothing but the list and the items was asked for
    assert all(target.startswith(("/api/list", "/api/items/")) for target in server.targets)
    assert len(server.targets) == len(ids) - 1


# --- the probe at registration ----------------------------------------------------------------------------------------


def model_of(ask_for: Callable[[Any], Any], **fields: Any) -> type[Any]:
    """Make a model whose get_api_detail_request is `ask_for`."""
    methods = {
        "get_external_id": lambda self: self.external_id,
        "get_api_detail_request": ask_for,
        "populate_from_api_response": lambda self, data: None,
    }
    fields = {"external_id": CharField(unique=True)} | fields
    return type("Probed", (Model,), fields | methods | {"Meta": type("Meta", (), {"database": db})})


def get(url: str, **options: Any) -> requests.Request:
    return requests.Request("GET", url, **options)


quote = requests.utils.quote


class CITextField(Field):
    field_type = "CITEXT"


RAW: dict[str, Callable[[Any], Any]] = {
    "it reads another field": lambda self: get(f"shops/{self.shop.lower()}/{self.external_id}"),
    "an f-string": lambda self: get(f"api/items/{self.external_id}"),
    "in the middle": lambda self: get(f"api/items/{self.external_id}/lines"),
    "with a query after it": lambda self: get(f"api/items/{self.external_id}?full=1"),
    "an absolute URL": lambda self: get(f"http://127.0.0.1:1/api/items/{self.external_id}"),
    "alone": lambda self: get(self.external_id),
    "in the host": lambda self: get(f"http://{self.external_id}.example/items"),
    "quoted but for /": lambda self: get(f"api/items/{quote(self.external_id)}"),
    "quoted but for ?": lambda self: get(f"api/items/{quote(self.external_id, safe='?')}"),
    "quoted but for #": lambda self: get(f"api/items/{quote(self.external_id, safe='#')}"),
    "without its slashes": lambda self: get(f"api/items/{self.external_id.replace('/', '-')}"),
    "in capitals": lambda self: get(f"api/items/{self.external_id.upper()}"),
    "raw in a query": lambda self: get(f"api/items?id={self.external_id}"),
    "after its shop": lambda self: get(f"api/items/{self.external_id.partition(':')[2]}"),
    "after what else it reads": lambda self: get(f"shops/{self.shop}/items/{self.external_id}"),
}
FINE: dict[str, Callable[[Any], Any]] = {
    "path": lambda self: get(path("api/items", self.external_id)),
    "path of an absolute URL": lambda self: get(path("http://127.0.0.1:1/items", self.external_id)),
    "path and a query": lambda self: get(f"{path('api/items', self.external_id)}?category=5&b?c"),
    "quoted whole": lambda self: get(f"api/items/{quote(self.external_id, safe='')}"),
    "quoted in a query": lambda self: get(f"api/items?id={quote(self.external_id)}"),
    "params": lambda self: get("api/items", params={"id": self.external_id}),
    "params beside a query that begins alike": lambda self: get("api/web?c=1", params={"id": self.external_id}),
    "json": lambda self: requests.Request("POST", "api/items", json={"id": self.external_id}),
    "data": lambda self: requests.Request("POST", "api/items", data={"id": self.external_id}),
    "no request": lambda self: None,
    "no request at all": lambda self: self.external_id,
    "it raises": lambda self: get(f"api/items/{int(self.external_id)}"),
    "after its shop, by path": lambda self: get(path("api/items", self.external_id.partition(":")[2])),
    "it stops the process": lambda self: 1 / 0,
}


@pytest.mark.parametrize("how", RAW)
def test_a_source_that_puts_its_ids_raw_into_the_address_is_refused(environment, how):
    model = model_of(RAW[how], shop=CharField(null=True))

    with pytest.raises(ConfigurationError) as caught:
        Registry([source_of(model)])

    assert 'path("api/items", self.external_id)' in str(caught.value)
    assert "a/../b?c#d" in str(caught.value)


@pytest.mark.parametrize("how", FINE)
def test_a_source_that_keeps_its_ids_apart_is_accepted(environment, how):
    model = model_of(FINE[how], shop=CharField(null=True))

    assert list(Registry([source_of(model)])) == ["articles"]


@pytest.mark.parametrize("field", [IntegerField, UUIDField])
def test_a_key_that_cannot_hold_such_an_id_is_accepted(environment, field):
    model = model_of(RAW["an f-string"], external_id=field(unique=True))

    assert list(Registry([source_of(model)])) == ["articles"]


@pytest.mark.parametrize("name", ["url", "self_href", "detail_link"])
def test_a_row_that_is_known_by_the_link_the_api_gave_it_is_accepted(environment, name):
    model = model_of(lambda self: get(getattr(self, name)), **{name: CharField(unique=True)})

    assert list(Registry([source_of(model, unique_by=name)])) == ["articles"]


@pytest.mark.parametrize("field", [CharField, TextField, CITextField])
def test_every_kind_of_text_is_probed(environment, field):
    with pytest.raises(ConfigurationError, match=r"self\.external_id"):
        Registry([source_of(model_of(RAW["an f-string"], external_id=field(unique=True)))])


def test_of_a_key_of_two_fields_each_text_is_probed(environment):
    raw = model_of(lambda self: get(f"shops/{self.shop}/items/{self.sku}"), shop=IntegerField(), sku=CharField())
    one = model_of(lambda self: get(path(f"shops/{self.shop}/items", self.sku)), shop=CharField(), sku=CharField())
    fine = model_of(lambda self: get(path("shops", self.shop, "items", self.sku)), shop=CharField(), sku=CharField())

    for model in (raw, one):
        with pytest.raises(ConfigurationError, match=r"self\.sku"):
            address_probe.check(model, ("shop", "sku"))
    address_probe.check(fine, ("shop", "sku"))


def test_the_probe_calls_no_default_and_asks_no_database(environment):
    # Given a model whose defaults count, one of whose fields is a row of another table, and no database
    counted: list[int] = []
    other = type("Other", (Model,), {"Meta": type("Meta", (), {"database": db})})
    model = model_of(
        lambda self: get(f"shops/{self.other.id}/items/{self.external_id}"),
        number=IntegerField(default=lambda: counted.append(1)),
        other=ForeignKeyField(other),
    )

    Registry([source_of(model)])

    assert counted == []
