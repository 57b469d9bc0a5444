"""Access to the page: the wall in front of it, the logins, the roles; by HTTP, by WebSocket and in a real Chromium."""

import http.client
import io
import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from click.testing import CliRunner
from dotenv import dotenv_values
from honcho.environ import parse as read_as_honcho
from itsdangerous import URLSafeSerializer
from playwright.sync_api import Browser, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.testing.v1 import AppTest
from streamlit.web.server.server_util import get_cookie_secret
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.helpers.machine import ROOT, free_port, wait_until
from workers import clock
from workers.cli.password import password as password_command
from workers.errors import ConfigurationError
from workers.monitor.access import hosts, login, login_throttle, password
from workers.monitor.access.oidc_login import OidcLogin
from workers.monitor.access.password_login import PasswordLogin
from workers.monitor.access.session import EndedSessions, Role, Sessions
from workers.monitor.serving import server
from workers.settings import get_settings

ACTING, LOOKING = "correct horse battery", "only looking here"
#: A project's own page: it says who looks, ticks, and has one thing to do.
PAGE = """
import streamlit as st
from workers.monitor.access import current_user
from workers.monitor.html.flush_delay import wait_for_flush

current_user.require_access()

@st.fragment(run_every=0.5)
def tick():
    st.session_state.ticks = st.session_state.get("ticks", 0) + 1
    st.html(f'<p class="who">{current_user.role()} {current_user.name()} ticks {st.session_state.ticks}</p>')

def act():
    st.session_state.done = "done by " + current_user.name() if current_user.may_act() else "refused"

tick()
st.html(current_user.log_out_form())
st.button("Act", on_click=act)
st.html(f'<p class="done">{st.session_state.get("done", "nothing done")}</p>')
wait_for_flush()
"""


# --- a page that is served behind the wall ----------------------------------------------------------------------------


@dataclass
class Served:
    """A page, and how it is reached."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, client: str = "127.0.0.1", body: str = "", **headers: str) -> "Answer":
        """Send a request as a client of this address; header names with `_` for `-`."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10, source_address=(client, 0))
        try:
            link.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
            got = link.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read().decode())
        finally:
            link.close()

    def log_in(self, word: str, client: str = "127.0.0.1", **more: str) -> "Answer":
        form = {"Content_Type": "application/x-www-form-urlencoded", "Origin": self.url}
        fields = {"password": word, **{name: more.pop(name) for name in ("name", "next") if name in more}}
        return self.ask("POST", "/login", client, urlencode(fields), **form | more)

    def cookie(self) -> str:
        return self.log_in(ACTING).headers["set-cookie"].partition(";")[0]

    def socket(self, name: str = "127.0.0.1", **headers: str) -> ClientConnection:
        sent = {"Origin": f"http://{name}:{self.port}"} | headers
        url, way = f"ws://{name}:{self.port}/_stcore/stream", ("127.0.0.1", self.port)
        return connect(url, additional_headers=sent, proxy=None, address=way)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str


@contextmanager
def running(command: list[str], folder: Path, log: Path, **variables: str) -> Iterator[None]:
    environment = os.environ | variables | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access")
    (folder / "monitor_app.py").write_text(PAGE)
    return folder


@pytest.fixture(scope="module")
def variables(project: Path) -> dict[str, str]:
    return {
        "SLUICE_DATA_DIR": str(project / "data"),
        "SLUICE_MONITOR_PASSWORD": password.make(ACTING, log_n=4),
        "SLUICE_MONITOR_VIEWER_PASSWORD": password.make(LOOKING, log_n=4),
    }


@pytest.fixture(scope="module")
def bare(project: Path, variables: dict[str, str]) -> Iterator[Served]:
    """The page as `streamlit run` serves it by hand: without the wall."""
    at = Served(free_port(), project / "bare.log")
    options = ["--server.address=127.0.0.1", f"--server.port={at.port}", "--server.headless=true"]
    quiet = ["--browser.gatherUsageStats=false", "--server.fileWatcherType=none"]
    command = [sys.executable, "-m", "streamlit", "run", "monitor_app.py", *options, *quiet]
    with running(command, project, at.log, **variables):
        yield at


@pytest.fixture(scope="module")
def page(project: Path, variables: dict[str, str], bare: Served) -> Iterator[Served]:
    """The page as `python -m workers monitor` serves it; `bare` starts meanwhile."""
    at = Served(free_port(), project / "page.log")
    command = [sys.executable, "-m", "workers", "monitor"]
    its = variables | {"SLUICE_MONITOR_PORT": str(at.port), "SLUICE_MONITOR_TRUSTED_PROXIES": "127.0.0.9"}
    with running(command, project, at.log, **its):
        wait_until(lambda: "Sluice is ready" in at.log.read_text(), 30, "the page")
        yield at


# --- outside the wall -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/run?id=1"),
        ("GET", "/favicon.png"),
        ("GET", "/static/js/index.js"),
        ("GET", "/_stcore/host-config"),
        ("GET", "/_stcore/metrics"),
        ("GET", "/_stcore/agent/openapi.json"),
        ("GET", "/_stcore/bidi-components/x"),
        ("GET", "/component/x/index.html"),
        ("GET", "/media/0.csv"),
        ("GET", "/auth/login"),
        ("PUT", "/_stcore/upload_file/1/2"),
        ("POST", "/_stcore/health"),
        ("OPTIONS", "/_stcore/stream"),
        ("GET", "/login/../_stcore/metrics"),
        ("GET", "//login"),
    ],
)
def test_without_a_session_nothing_is_answered(page: Served, method: str, path: str) -> None:
    answer = page.ask(method, path)

    assert (answer.status, answer.body) == (401, "Log in first, at /login\n")


def test_a_browser_is_led_to_the_login_and_back(page: Served) -> None:
    # When
    led = page.ask("GET", "/run?id=1", Accept="text/html")
    form = page.ask("GET", led.headers["location"])

    # Then
    assert (led.status, led.headers["location"]) == (303, "/login?next=/run%3Fid%3D1")
    assert form.status == 200 and 'name="next" value="/run?id=1"' in form.body
    assert "<script" not in form.body and "//" not in form.body
    assert page.log_in(ACTING, next="/run?id=1").headers["location"] == "/run?id=1"


@pytest.mark.parametrize(
    "onward", ["//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nX: y", "/logout"]
)
def test_a_login_leads_to_no_other_place(page: Served, onward: str) -> None:
    assert page.log_in(ACTING, next=onward).headers["location"] == "/"
    assert 'value="/"' in page.ask("GET", f"/login?{urlencode({'next': onward})}").body


def test_health_says_ok_and_nothing_else(page: Served) -> None:
    answer = page.ask("GET", "/_stcore/health")

    assert (answer.status, answer.body) == (200, "ok")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/login", "/_stcore/health", "/_stcore/metrics"])
def test_every_answer_keeps_other_pages_away(page: Served, path: str) -> None:
    headers = page.ask("GET", path).headers

    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "a@localhost", ""])
def test_a_name_that_is_not_ours_gets_no_answer(page: Served, host: str) -> None:
    """With DNS rebinding, the Host header has the name of another site."""
    for path in ("/login", "/_stcore/health"):
        assert page.ask("GET", path, Host=host).status in (400, 403)
    assert page.ask("GET", "/login", Host="localhost:1234").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": ""},
        {"Cookie": "sluice_session_8501=anything"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"name": "evil.example"},
    ],
    ids=str,
)
def test_the_socket_is_refused_before_it_is_accepted(page: Served, headers: dict[str, str]) -> None:
    # Given a session, and everything right except one thing
    right = {"Cookie": page.cookie()}
    with page.socket(**right):
        pass

    # Then
    with pytest.raises(InvalidStatus) as refused, page.socket(**right | headers):
        pass
    assert refused.value.response.status_code == 403


# --- logging in -------------------------------------------------------------------------------------------------------


def test_the_right_password_gives_a_cookie_that_no_script_reads(page: Served) -> None:
    # When
    answer = page.log_in(ACTING, name="Anna")

    # Then
    said = answer.headers["set-cookie"]
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=43200"} <= set(said.split("; "))
    assert page.ask("GET", "/_stcore/host-config", Cookie=said.partition(";")[0]).status == 200


def test_a_proxy_is_believed_where_it_is_known_and_nowhere_else(page: Served) -> None:
    # Given
    said = {"X_Forwarded_For": "203.0.113.5", "X_Forwarded_Proto": "https"}

    # When
    strange, known = page.log_in(ACTING, **said), page.log_in(ACTING, client="127.0.0.9", **said)

    # Then
    assert "Secure" not in strange.headers["set-cookie"] and "Secure" in known.headers["set-cookie"]
    assert page.log.read_text().count("203.0.113.5") == 1


def test_a_wrong_password_says_so_and_gives_nothing(page: Served) -> None:
    answer = page.log_in('"><script>alert(1)</script>', client="127.0.0.7", name="<b>", next='/"><b>')

    assert answer.status == 403 and "Wrong password" in answer.body
    assert "set-cookie" not in answer.headers
    assert "<script" not in answer.body and "<b>" not in answer.body


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1"])
def test_only_our_own_form_logs_in_and_out(page: Served, origin: str) -> None:
    cookie = page.cookie()

    assert page.log_in(ACTING, Origin=origin).status == 403
    assert page.ask("POST", "/logout", Origin=origin, Cookie=cookie).status == 403
    assert page.ask("GET", "/_stcore/host-config", Cookie=cookie).status == 200


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", '{"password": "x"}'),
        ("application/x-www-form-urlencoded", "password=" + "x" * 5000),
        ("application/x-www-form-urlencoded", "&".join(f"p{n}=1" for n in range(20))),
    ],
)
def test_what_is_no_form_of_ours_is_not_read(page: Served, kind: str, body: str) -> None:
    assert page.ask("POST", "/login", "127.0.0.8", body, Content_Type=kind, Origin=page.url).status == 400


def test_tries_run_out_for_one_address_and_for_no_other(page: Served) -> None:
    # When: it claims to be other addresses, by a header of an untrusted proxy
    answers = [
        page.log_in("wrong", client="127.0.0.2", X_Forwarded_For=f"10.0.0.{n}")
        for n in range(login_throttle.OF_ONE + 1)
    ]

    # Then
    assert [answer.status for answer in answers] == [403] * login_throttle.OF_ONE + [429]
    assert re.search(r"Too many attempts\. Try again in (5\d s|1 min 0 s)\.", answers[-1].body)
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 60
    # And the right password waits as long, but not from another address
    assert page.log_in(ACTING, client="127.0.0.2").status == 429
    assert page.log_in(ACTING, client="127.0.0.3").status == 303


def test_who_logs_out_is_out_everywhere_and_his_open_socket_ends(page: Served) -> None:
    # Given
    cookie = page.cookie()
    with page.socket(Cookie=cookie) as socket:
        # When
        out = page.ask("POST", "/logout", Cookie=cookie, Origin=page.url)
        socket.send(b"\x00")

        # Then: the browser has to reload the page, and the socket closes
        message = ForwardMsg.FromString(bytes(socket.recv(5)))
        assert message.WhichOneof("type") == "auth_redirect"
        with pytest.raises(ConnectionClosed):
            socket.recv(5)
    assert out.headers["location"] == "/login" and "Max-Age=0" in out.headers["set-cookie"]
    assert page.ask("GET", "/", Cookie=cookie).status == 401


# --- inside -----------------------------------------------------------------------------------------------------------


def test_a_page_lives_behind_the_wall_until_somebody_logs_out(page: Served, browser: Browser) -> None:
    # Given
    context = browser.new_context()
    tab, noise = context.new_page(), []
    tab.on("console", lambda message: noise.append(f"{message.type}: {message.text}"))
    tab.on("request", lambda request: noise.append(request.url) if not request.url.startswith(page.url) else None)

    # When he logs in by keyboard alone
    tab.goto(f"{page.url}/?a=1")
    expect(tab.get_by_label("Password")).to_be_focused()
    tab.keyboard.type(ACTING)
    tab.keyboard.press("Enter")

    # Then the page he asked for lives
    expect(tab.locator(".who")).to_contain_text(re.compile(r"operator operator ticks [3-9]"), timeout=20_000)
    assert tab.url == f"{page.url}/?a=1"
    tab.get_by_role("button", name="Act").click()
    expect(tab.locator(".done")).to_have_text("done by operator")
    assert [line for line in noise if line != "data:,"] == []

    # When he logs out in another tab
    other = context.new_page()
    other.goto(f"{page.url}/logout")
    other.get_by_role("button", name="Log out").click()
    other.wait_for_url("**/login")

    # Then the first one shows nothing any more
    expect(tab.get_by_label("Password")).to_be_visible(timeout=10_000)
    assert tab.url.endswith("/login?next=/%3Fa%3D1")

    # When a viewer comes instead
    tab.get_by_label("Your name").fill("<b>Bob")
    tab.get_by_label("Password").fill(LOOKING)
    tab.keyboard.press("Enter")
    expect(tab.locator(".sl-log-out")).to_contain_text("<b>Bob viewer", timeout=20_000)

    # Then he looks, and cannot act
    tab.get_by_role("button", name="Act").click()
    expect(tab.locator(".done")).to_have_text("refused")
    tab.locator(".sl-log-out button").click()
    expect(tab.get_by_label("Password")).to_be_visible(timeout=10_000)
    context.close()


def test_without_its_wall_the_page_shows_nothing(
    page: Served, bare: Served, project: Path, variables: dict[str, str]
) -> None:
    """Given `streamlit run` by hand where a password is set, and a valid session."""
    operators = {Role.OPERATOR: variables["SLUICE_MONITOR_PASSWORD"]}
    _, token = Sessions(project / "data", operators).begin(Role.OPERATOR, "Anna", hours=1)
    wait_until(lambda: "URL" in bare.log.read_text(), 30, "streamlit run")

    with bare.socket(Cookie=f"sluice_session_8501={token}") as socket:
        drawn = draw(socket)

    assert "python -m workers monitor" in drawn
    assert "Act" not in drawn and "ticks" not in drawn


@pytest.mark.parametrize("path", ["/_stcore/upload_file/x/y", "/_stcore/metrics"])
def test_what_no_page_of_ours_needs_is_closed(page: Served, path: str) -> None:
    assert page.ask("PUT" if "upload" in path else "GET", path, Cookie=page.cookie()).status == 404


def draw(socket: ClientConnection) -> str:
    """Have the page drawn, as a browser would, and return all that was said of it."""
    socket.send(BackMsg(rerun_script=ClientState()).SerializeToString())
    messages = []
    while not messages or messages[-1].WhichOneof("type") != "script_finished":
        messages.append(ForwardMsg.FromString(bytes(socket.recv(20))))
    return "\n".join(str(message.delta) for message in messages)


def test_the_log_says_who_came_and_no_password(page: Served) -> None:
    cookie = page.cookie().partition("=")[2]

    logged = page.log.read_text()

    assert "logged in as operator, from 127.0.0.1" in logged
    assert not [secret for secret in (ACTING, LOOKING, cookie, "scrypt:") if secret in logged]
    assert "Traceback" not in logged


def test_the_key_is_for_our_eyes_and_stays(page: Served, project: Path) -> None:
    key = project / "data" / "monitor.key"

    assert key.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(key.read_text())) == 32
    assert sorted(path.name for path in key.parent.iterdir()) == ["monitor.ended", "monitor.key"]


# --- sessions ---------------------------------------------------------------------------------------------------------

HASHES = {Role.OPERATOR: "one", Role.VIEWER: "two"}


def test_a_session_ends_by_itself(moved_clock: clock.MovedClock, tmp_path: Path) -> None:
    # Given
    sessions, ended = Sessions(tmp_path, HASHES), EndedSessions(tmp_path)
    session, token = sessions.begin(Role.VIEWER, "Anna", hours=12)
    assert sessions.read(token) == session and not ended.has(session)

    # When
    moved_clock.advance(12 * 3600 - 1)
    assert not ended.has(session)
    moved_clock.advance(1)

    # Then
    assert ended.has(session)


def test_a_restart_ends_no_session_and_revives_none(moved_clock: clock.MovedClock, tmp_path: Path) -> None:
    # Given
    sessions = Sessions(tmp_path, HASHES)
    (kept, token), (left, _) = sessions.begin(Role.OPERATOR, "a", 12), sessions.begin(Role.OPERATOR, "b", 12)
    EndedSessions(tmp_path).add(left)

    # Then
    assert Sessions(tmp_path, HASHES).read(token) == kept
    assert (EndedSessions(tmp_path).has(kept), EndedSessions(tmp_path).has(left)) == (False, True)
    # And what is out of time is not remembered for ever
    moved_clock.advance(13 * 3600)
    EndedSessions(tmp_path)
    assert (tmp_path / "monitor.ended").read_text() == ""


def test_a_new_password_ends_the_sessions_of_the_old_one(tmp_path: Path) -> None:
    # Given
    _, acting = Sessions(tmp_path, HASHES).begin(Role.OPERATOR, "a", 1)
    looking, token = Sessions(tmp_path, HASHES).begin(Role.VIEWER, "b", 1)

    # When
    changed = Sessions(tmp_path, HASHES | {Role.OPERATOR: "three"})

    # Then
    assert changed.read(acting) is None
    assert changed.read(token) == looking


def test_a_forged_token_is_nobody_s(tmp_path: Path) -> None:
    # Given
    sessions = Sessions(tmp_path / "ours", HASHES)
    session, token = sessions.begin(Role.VIEWER, "Anna", 1)
    value, signature = token.split(".")
    longer = b64encode(json.dumps([session.id, "Anna", 9999999999]).encode()).decode().rstrip("=")

    # Then: changed, of another key, of no key, cut, or nothing at all
    stranger = Sessions(tmp_path / "theirs", HASHES).begin(Role.OPERATOR, "Anna", 1)[1]
    unsalted = str(
        URLSafeSerializer((tmp_path / "ours" / "monitor.key").read_text()).dumps([session.id, "Anna", 2**31])
    )
    for forged in (f"{longer}.{signature}", stranger, unsalted, value, f"{value}.", "", ".", "\x00é"):
        assert sessions.read(forged) is None, forged
    # And a viewer's token is no operator's
    assert sessions.read(token) == session and session.role is Role.VIEWER


def test_a_key_that_is_none_is_refused_with_its_repair(tmp_path: Path) -> None:
    key = tmp_path / "monitor.key"
    key.write_text("")
    key.chmod(0o644)

    with pytest.raises(ConfigurationError, match="can be read by others"):
        Sessions(tmp_path, HASHES)
    key.chmod(0o600)
    with pytest.raises(ConfigurationError, match="holds no key"):
        Sessions(tmp_path, HASHES)


def test_a_folder_that_cannot_be_written_is_named_with_its_repair() -> None:
    with pytest.raises(ConfigurationError, match=r"monitor\.key cannot be written .*SLUICE_DATA_DIR"):
        Sessions(Path("/proc/self"), HASHES)


# --- tries ------------------------------------------------------------------------------------------------------------


def test_tries_come_back_after_a_minute(moved_clock: clock.MovedClock) -> None:
    # Given
    made = login_throttle.LoginThrottle()
    assert [made.acquire("192.0.2.1") for _ in range(login_throttle.OF_ONE)] == [0.0] * login_throttle.OF_ONE

    # Then
    moved_clock.advance(33)
    assert made.acquire("192.0.2.1") == 27
    moved_clock.advance(26.9)
    assert made.acquire("192.0.2.1") == pytest.approx(0.1)
    moved_clock.advance(0.2)
    assert made.acquire("192.0.2.1") == 0
    assert len(made._attempts) == 1  # older ones take no memory


def test_many_addresses_together_try_no_more_than_a_few_alone(moved_clock: clock.MovedClock) -> None:
    made = login_throttle.LoginThrottle()

    waits = [made.acquire(f"192.0.2.{n}") for n in range(login_throttle.OF_ALL + 1)]

    assert waits == [0.0] * login_throttle.OF_ALL + [60.0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),  # a customer's 2^64
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("", "no address", True),
    ],
)
def test_what_counts_as_one_address(moved_clock: clock.MovedClock, one: str, other: str, same: bool) -> None:
    made = login_throttle.LoginThrottle()
    for _ in range(login_throttle.OF_ONE):
        made.acquire(one)

    assert bool(made.acquire(other)) == same


def test_who_knows_one_password_guesses_the_other_no_faster(moved_clock: clock.MovedClock) -> None:
    # Given four wrong ones, and then the viewers' password
    made = login_throttle.LoginThrottle()
    for _ in range(login_throttle.OF_ONE):
        made.acquire("192.0.2.1")
    made.forgive("192.0.2.1")

    # Then the try that was none is given back, and no other
    assert made.acquire("192.0.2.1") == 0
    assert made.acquire("192.0.2.1") > 0


# --- passwords --------------------------------------------------------------------------------------------------------


def test_a_hash_knows_its_password_and_no_other() -> None:
    kept = password.make("caf\u00e9 au lait, chaud")

    assert password.matches("cafe\u0301 au lait, chaud", kept)  # the same word from another keyboard
    assert not password.matches("cafe au lait, chaud", kept)
    assert not password.matches("", kept)
    assert password.make("caf\u00e9 au lait, chaud") != kept


def test_the_line_for_env_survives_honcho_and_pydantic_without_quotes() -> None:
    # Given the line as the command prints it
    printed = CliRunner().invoke(password_command, ["--viewer"], input=f"{LOOKING}\n")
    line = printed.stdout.strip()
    name, _, kept = line.partition("=")

    # Then
    assert name == "SLUICE_MONITOR_VIEWER_PASSWORD" and password.matches(LOOKING, kept)
    assert read_as_honcho(line) == {name: kept}
    assert dict(dotenv_values(stream=io.StringIO(line))) == {name: kept}
    assert (
        subprocess.run(["sh", "-c", f"{line}; printf %s ${name}"], capture_output=True, text=True, check=True).stdout
        == kept
    )
    assert LOOKING not in printed.output


def test_a_short_password_is_refused() -> None:
    refused = CliRunner().invoke(password_command, input="elevenchars\n")

    assert refused.exit_code == 2 and "12 to 1024 characters" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("variable", ["SLUICE_MONITOR_PASSWORD", "SLUICE_MONITOR_VIEWER_PASSWORD"])
def test_a_plain_password_in_the_settings_is_refused_with_the_fix(
    environment: pytest.MonkeyPatch, variable: str
) -> None:
    environment.setenv(variable, "hunter2hunter2")

    with pytest.raises(ConfigurationError, match=f"{variable} .*python -m workers password") as refused:
        get_settings()

    assert "hunter2" not in str(refused.value)


# --- where it may be served -------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(environment: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    login.get_login.cache_clear()
    yield environment
    login.get_login.cache_clear()


def test_with_a_password_others_may_reach_it(fresh: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    # Given
    fresh.setenv("SLUICE_MONITOR_HOST", "0.0.0.0")
    with pytest.raises(ConfigurationError, match="no password is set"):
        login.check()

    # When
    fresh.setenv("SLUICE_MONITOR_VIEWER_PASSWORD", variables["SLUICE_MONITOR_VIEWER_PASSWORD"])
    get_settings.cache_clear()

    # Then
    login.check()
    assert isinstance(login.get_login(), PasswordLogin)
    assert "--server.address=0.0.0.0" in server.command("0.0.0.0", 1)


def test_names_of_the_page_are_its_own_and_those_it_was_told(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("SLUICE_MONITOR_ALLOWED_HOSTS", "Sluice.example, other.example")

    known = ["localhost", "sluice.example", "SLUICE.example.:443", "127.0.0.1:8501", "[::1]:8501", "192.168.1.5"]
    assert [host for host in known if not hosts.is_allowed(host)] == []
    strange = ["", None, "example", "evil.example", "sluice.example.evil", "[::1", "localhost:x", "1.2.3.4.evil", "a/b"]
    assert [host for host in strange if hosts.is_allowed(host)] == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SLUICE_MONITOR_OPERATORS", "anna"),
        ("SLUICE_MONITOR_VIEWERS", "anna@"),
        ("SLUICE_MONITOR_TRUSTED_PROXIES", "*"),
        ("SLUICE_MONITOR_SESSION_HOURS", "0"),
    ],
)
def test_a_list_that_would_let_in_the_wrong_ones_is_refused(
    fresh: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    fresh.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=variable):
        get_settings()


def test_oidc_that_lets_nobody_in_is_refused_at_the_start(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("SLUICE_MONITOR_LOGIN", "oidc")

    with pytest.raises(ConfigurationError, match=r"sluice-importer\[oidc\]|SLUICE_MONITOR_OPERATORS"):
        login.check()


def test_on_this_machine_without_a_password_everybody_is_an_operator(fresh: pytest.MonkeyPatch) -> None:
    # Given
    def page() -> None:
        import streamlit as st

        from workers.monitor.access import current_user

        current_user.require_access()
        st.write(
            f"{current_user.role()} {current_user.name()} {current_user.may_act()} {current_user.log_out_form()!r}"
        )

    # Then
    assert AppTest.from_function(page).run().markdown[0].value == "operator monitor True ''"


# --- oidc -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def by_oidc(fresh: pytest.MonkeyPatch) -> OidcLogin:
    fresh.setenv("SLUICE_MONITOR_OPERATORS", "Anna@example.org")
    fresh.setenv("SLUICE_MONITOR_VIEWERS", "@example.org, @example.net")
    return OidcLogin()


def cookies(secret: str = "", **claims: Any) -> dict[str, str]:
    """Return the cookie that Streamlit sets after a login at the provider."""
    usual = {"is_logged_in": True, "iss": "https://id.example", "sub": "42", "iat": int(clock.now().timestamp())}
    value = json.dumps(usual | {"email_verified": True} | claims)
    return {"_streamlit_user": create_signed_value(secret or get_cookie_secret(), "_streamlit_user", value).decode()}


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"email": "anna@example.org"}, Role.OPERATOR),
        ({"email": "ANNA@example.org"}, Role.OPERATOR),
        ({"email": "bob@example.net"}, Role.VIEWER),
        ({"email": "bob@sub.example.net"}, None),
        ({"email": "eve@evil.org"}, None),
        ({"email": "example.org"}, None),
        ({"email": "eve@evil.org@example.org"}, None),
        ({"email": "anna@example.org", "email_verified": False}, None),
        ({"email": "anna@example.org", "email_verified": None}, None),
        ({"email": "anna@example.org", "is_logged_in": False}, None),
        ({"email": "anna@example.org", "iat": 0}, None),
        ({"email": ["anna@example.org"]}, None),
        ({}, None),
        ({"email": "anna@example.org", "secret": "of another site, and long enough"}, None),
    ],
    ids=str,
)
def test_a_verified_address_in_a_list_has_its_role(
    by_oidc: OidcLogin, claims: dict[str, Any], role: Role | None
) -> None:
    session = by_oidc.session(cookies(**claims))

    assert (session.role if session else None) is role


def test_a_session_by_oidc_ends_too(by_oidc: OidcLogin) -> None:
    # Given
    now = clock.now().timestamp()
    session = by_oidc.session(cookies(email="anna@example.org", iat=now))
    assert session and session.name == "anna@example.org" and session.until - clock.now() < timedelta(hours=12)

    # Then it ends by itself, and by hand
    assert by_oidc.session(cookies(email="anna@example.org", iat=now - 12 * 3600)) is None
    by_oidc._ended.add(session)
    assert by_oidc.session(cookies(email="anna@example.org", iat=now)) is None
    assert by_oidc.session(cookies(email="anna@example.org", iat=now - 1)) is not None
