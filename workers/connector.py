"""Connector: one remote API. It takes a permit for every request it sends, and sorts each answer by what to do next."""

import http.client
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ReadTimeoutError
from urllib3.util import Timeout

from workers import checked, hidden, redaction, request_secrets
from workers.address import flaw_of, join, with_query
from workers.asked import asked
from workers.budget import Budget, Limit, Profile
from workers.caller import Caller
from workers.errors import AuthError, ConfigurationError, DependencyDown, PermanentError, RateLimited, RetryableError
from workers.exact import NotANumber, read_float
from workers.failures import FailureClass
from workers.ledger import FRESH_SECONDS, Watermark
from workers.limiter import RateLimiter, redis_client
from workers.settings import get_settings
from workers.transport import DeadlineAdapter, sent_by

_NOT_FOUND = {404, 410}
_RETRYABLE = {408, 421, 425}
_NO_CONTENT = {204, 205}

#: What is unpacked: none of these says what it needs memory for before it is asked for so many bytes.
_UNPACKED = {"gzip", "x-gzip", "deflate"}
#: What could be unpacked, and is not. Other words, as "UTF-8", are mistakes: the body is taken as it is.
_PACKED = {"br", "zstd", "compress", "x-compress"}

#: What reading a body may raise; the last two come bare out of urllib3 where the packing is broken.
_BROKEN = (requests.RequestException, HTTPError, http.client.HTTPException, ValueError, zlib.error)


class Connector:
    """One remote API: where it is, how to authenticate, how much it allows.

    Parameters:
      name(str): The budget's name. Connectors of one name share one budget, in every process.
      base_url(str): http:// or https://; relative request URLs are joined to it, and no other host is ever called. The
        query of it, as `?api_key=...`, is sent with every request that does not name the same parameters.
      limits(Sequence[Limit]): What the API allows; all of them hold.
      headers(Mapping[str, str]): Sent with every request.
      auth(AuthBase | tuple[str, str] | None): As `requests` takes it.
      secrets(str | Sequence[str]): What else must never be logged, stored or shown, as a key in a path. What headers
        and auth hold, the query, and each request's parameters of a secret name are hidden without it.
      timeout(float | None): Seconds one request may take in all; default SLUICE_REQUEST_TIMEOUT_SECONDS.
      share(float), profile(str), trust_server(bool): As `Budget` takes them.

    Raises:
      ConfigurationError: The URL is not an http(s) one, the limits cannot be, or a secret is too short to be hidden.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        limits: Sequence[Limit],
        headers: Mapping[str, str] | None = None,
        auth: "AuthBase | tuple[str, str] | None" = None,
        secrets: "str | Sequence[str]" = (),
        timeout: float | None = None,
        share: float = 1.0,
        profile: Profile = "auto",
        trust_server: bool = False,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                f"Connector {name!r}: base_url must be an http:// or https:// address, "
                f"not {redaction.redact(base_url)!r}"
            )
        if parts.username or parts.password:
            raise ConfigurationError(
                f"Connector {name!r}: give credentials as auth=(user, password), not inside base_url"
            )
        if parts.fragment:
            raise ConfigurationError(f"Connector {name!r}: base_url has a fragment, which is never sent: leave it out")
        self.name = name
        self.base_url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
        self._query = parts.query
        self.budget = Budget(name, limits, share=share, profile=profile, trust_server=trust_server)
        self.headers = dict(headers or {})
        self.auth = auth
        self._hidden = hidden.Held(
            [*request_secrets.given(secrets, name), *request_secrets.of_address(base_url)],
            lambda: [*request_secrets.of_headers(self.headers), *request_secrets.of_auth(self.auth)],
        )
        self.timeout = None if timeout is None else checked.timeout(timeout, f"Connector {name!r}")
        self._origin = self._origin_as_sent()
        self._limiter: RateLimiter | None = None
        self._adapter = DeadlineAdapter(pool_connections=4, pool_maxsize=256, max_retries=0)

    def _origin_as_sent(self) -> str:
        """Return the origin of the base URL as the HTTP client spells it: a host of other letters is sent in ASCII.

        Raises:
          ConfigurationError: It cannot be sent, or not as it is written.
        """
        try:
            flaw = flaw_of(self.base_url)
            origin = _origin(str(requests.Request("GET", self.base_url).prepare().url))
        except (requests.RequestException, ValueError) as error:
            flaw = f"is not an address that can be called ({type(error).__name__})"
        if flaw:
            raise ConfigurationError(f"Connector {self.name!r}: base_url {redaction.redact(self.base_url)!r} {flaw}")
        return origin

    @property
    def limiter(self) -> RateLimiter:
        """The budget's limiter, on the Redis of the settings; made when first used."""
        if self._limiter is None:
            settings = get_settings()
            self._limiter = RateLimiter(
                self.budget,
                redis_client(settings.redis_url),
                prefix=settings.prefix,
                max_wait_seconds=settings.max_wait_seconds,
                linger_seconds=settings.linger_seconds,
                longest_pause_seconds=settings.longest_pause_seconds,
            )
        return self._limiter

    @property
    def timeout_seconds(self) -> float:
        """Seconds one request may take in all."""
        return self.timeout or get_settings().request_timeout_seconds

    def caller(self, run_id: int | None = None, name: str | None = None, watermark: Watermark | None = None) -> Caller:
        """Return one thread's place in the line of this API's budget.

        Parameters:
          run_id(int | None), name(str | None): As `RateLimiter.caller` takes them.
          watermark(Watermark | None): What outlives Redis, for the limiter; the first one given is kept.
        """
        self.limiter.ledger.watermark = self.limiter.ledger.watermark or watermark
        return self.limiter.caller(run_id, name)

    def weigh(self, request: requests.Request) -> int:
        """Return as how many requests the API counts this one. Override it where some cost more than others."""
        return 1

    def get_json(self, request: requests.Request, caller: Caller) -> Any:
        """Send `request` and return its decoded JSON body.

        JSON is UTF-8, UTF-16 or UTF-32, or what its Content-Type names as the charset. Parameters and errors are
        those of `send`.

        Raises:
          RetryableError: The body is no JSON: the next one may be whole.
          PermanentError: There is none (204), or it holds what cannot be used: NaN, a number beyond all floats or of
            too many digits, endless nesting.
        """
        response = self.send(request, caller)
        said = f"{_title(request)} answered {response.status_code}"
        if response.status_code in _NO_CONTENT:
            raise PermanentError(f"{said}: it has no content", FailureClass.BAD_DATA)
        try:
            return _decode(response)
        except NotANumber as error:
            raise PermanentError(f"{said} with {error}", FailureClass.BAD_DATA) from None
        except RecursionError:
            raise PermanentError(f"{said} with JSON that is nested too deeply", FailureClass.BAD_DATA) from None
        except ValueError:
            kind = _content_type(response)
            raise RetryableError(f"{said} with a body that is not JSON ({kind})") from None

    def send(self, request: requests.Request, caller: Caller) -> requests.Response:
        """Send one request with one permit, and return its response, a 2xx.

        Parameters:
          request(requests.Request): A relative URL is joined to the base URL. Redirects and retries are never made.
          caller(Caller): Whose permit it takes; sleeps for it when the wait is short.

        Returns:
          requests.Response: Its body has been read whole, up to SLUICE_MAX_BODY_BYTES.

        Raises:
          RateLimited: No permit in time, or the API said 429 (the whole budget then pauses).
          LongWait: It said 429 and asked for a wait above SLUICE_LONGEST_PAUSE_SECONDS.
          RetryableError: Timeout, connection trouble, 5xx.
          AuthError: 401 or 403.
          PermanentError: Any other refusal, a redirect, a body over the size limit or packed in an unknown way, an
            address of another host or one that would be changed on its way.
          DependencyDown: Redis does not answer, so there is no permit.
        """
        prepared = self._prepare(request)
        permit = caller.take(self.timeout_seconds, self.weigh(request))
        try:
            timeout: Any = Timeout(total=self.timeout_seconds)  # connecting and waiting together
            # A process may be stopped between the two: then nothing is sent that the permit may not cover any more.
            with sent_by(permit.granted_at + FRESH_SECONDS + self.timeout_seconds):
                response = self._adapter.send(prepared, stream=True, timeout=timeout)
        except (requests.RequestException, HTTPError) as error:
            never_sent = self._why_never_sent(error)
            if never_sent:
                caller.unsent(permit)
            raise RetryableError(f"{_title(request)}: {never_sent or self._why_unanswered(error)}") from None
        try:
            caller.heard(permit, response.status_code, response.headers)
        except (RateLimited, DependencyDown):
            response.close()
            raise
        try:
            self._read(response, request)
        except (RetryableError, PermanentError):
            if 200 <= response.status_code < 300:
                raise  # of a refusal the status says enough
        self._sort(response, request)
        return response

    def _why_never_sent(self, error: Exception) -> str:
        """Say why the request cannot have reached the API; empty where it may have."""
        if isinstance(error, requests.ConnectTimeout):
            return f"no connection within {self.timeout_seconds:g} s"
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(reason, NameResolutionError):
            return f"the name in {self._origin} is not known"
        if isinstance(reason, NewConnectionError):
            refused = isinstance(reason.__cause__, ConnectionRefusedError)
            return f"{self._origin} {'refuses connections' if refused else 'cannot be reached'}"
        return ""

    def _why_unanswered(self, error: Exception) -> str:
        cause = _cause(error)
        if isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
            return f"no answer within {self.timeout_seconds:g} s"
        if isinstance(error, requests.exceptions.SSLError):
            return f"no secure connection to {self._origin}: is its certificate valid?"
        if isinstance(cause, http.client.HTTPException) and not isinstance(cause, ConnectionError):
            return f"what came back is not HTTP ({type(cause).__name__})"
        if isinstance(error, requests.exceptions.InvalidHeader):
            return "what came back is not HTTP (InvalidHeader)"
        return f"the connection broke ({type(error).__name__})"

    def _prepare(self, request: requests.Request) -> requests.PreparedRequest:
        """Return the request as it is sent; it asks for what `request` names, on this host, or is refused.

        Raises:
          PermanentError: It is not.
        """
        address = with_query(join(self.base_url, str(request.url)), self._query, request.params)
        _refuse_flaw(request, address)  # before requests drops `..`
        try:
            full = requests.Request(
                method=request.method or "GET",
                url=address,
                headers={"Accept": "application/json", **self.headers, **(request.headers or {})},
                files=request.files,
                params=request.params,
                data=request.data,
                json=request.json,
                auth=request.auth or self.auth,
                cookies=request.cookies,
            ).prepare()
            origin = _origin(str(full.url))
            for value in full.headers.values():  # http.client would find out only with a permit taken
                if isinstance(value, str):  # requests takes bytes, too: OAuth1 sets them
                    value.encode("latin-1")
        except (requests.RequestException, ValueError) as error:
            # Not its text: it may quote a header.
            raise PermanentError(
                f"{_title(request)} is not a request that can be sent ({type(error).__name__})", FailureClass.CONTRACT
            ) from None
        if origin != self._origin:  # of the prepared URL: the one that is sent is the one to look at
            raise PermanentError(
                f"{_title(request)} is not on {self._origin}: a connector calls its own host only",
                FailureClass.CONTRACT,
            )
        hidden.note(request_secrets.of_request(full))  # with what auth has renewed
        _refuse_flaw(request, str(full.url))  # an auth object may have changed it
        return full

    def _read(self, response: requests.Response, request: requests.Request) -> None:
        limit, body = get_settings().max_body_bytes, bytearray()
        response._content = b""
        try:
            if not _is_unpacked(response.headers.get("Content-Encoding", "")):
                # Not several at once either: each turns a byte into a thousand, whatever the last one lets through.
                raise PermanentError(
                    f"{_title(request)}: the body is packed in a way that nobody asked for: let the API send it plain, "
                    f"or as gzip or deflate, once",
                    FailureClass.CONTRACT,
                )
            for chunk in response.iter_content(65_536):
                body += chunk
                if len(body) > limit:
                    raise PermanentError(
                        f"{_title(request)}: the body is over SLUICE_MAX_BODY_BYTES ({limit:,} bytes)",
                        FailureClass.CONTRACT,
                    )
        except _BROKEN as error:
            raise RetryableError(f"{_title(request)}: the answer {self._why_cut(error)}") from None
        finally:
            response.close()
        response._content = bytes(body)

    def _why_cut(self, error: Exception) -> str:
        if error.args and isinstance(error.args[0], ReadTimeoutError):
            return f"was not complete within {self.timeout_seconds:g} s"
        if isinstance(error, (requests.exceptions.ContentDecodingError, zlib.error)):
            return "is not packed as its Content-Encoding says"
        return f"broke off ({type(error).__name__})"

    def _sort(self, response: requests.Response, request: requests.Request) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        said = f"{_title(request)} answered {status}"
        if status in (401, 403):
            raise AuthError(f"{said}: check the credentials of connector {self.name!r}", status)
        if status in _NOT_FOUND:
            raise PermanentError(said, FailureClass.NOT_FOUND)
        if status >= 500 or status in _RETRYABLE:
            raise RetryableError(said)
        if 300 <= status < 400:
            raise PermanentError(
                f"{said}: redirects are not followed; set base_url to the final address", FailureClass.CONTRACT
            )
        if status < 200:
            raise PermanentError(f"{said}: nobody asked for another protocol", FailureClass.CONTRACT)
        raise PermanentError(f"{said}{_hint(response)}", FailureClass.BAD_DATA)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _refuse_flaw(request: requests.Request, address: str) -> None:
    if flaw := flaw_of(address):
        raise PermanentError(f"{_title(request)} is not sent: the address {flaw}", FailureClass.CONTRACT)


def _title(request: requests.Request) -> str:
    """Name a request without its address: a path may hold a key as a query does."""
    return asked(f"the {request.method or 'GET'} request")


def _is_unpacked(encoding: str) -> bool:
    words = [word.strip() for word in encoding.lower().split(",")]
    packings = [word for word in words if word in _UNPACKED | _PACKED]
    return len(packings) <= 1 and not _PACKED & set(packings)


def _decode(response: requests.Response) -> Any:
    """Decode JSON. Not `response.json()`: where a body is not UTF-8 that one guesses, for minutes.

    Raises:
      ValueError: It is none.
    """
    try:
        return _loads(response.content)
    except UnicodeDecodeError:
        charset = re.search(r"charset=[\"']?([\w.:-]{1,40})", response.headers.get("Content-Type", ""), re.IGNORECASE)
        try:
            text = response.content.decode(charset[1]) if charset else ""
        except LookupError:  # there is no such charset, or it is none of text
            text = ""
        return _loads(text)


def _loads(body: bytes | str) -> Any:
    try:
        return json.loads(body, parse_float=read_float, parse_constant=_refuse)
    except (json.JSONDecodeError, UnicodeDecodeError, NotANumber):
        raise
    except ValueError:
        raise NotANumber("a number of too many digits") from None


def _refuse(constant: str) -> NoReturn:
    raise NotANumber(f"{constant}, which JSON does not have: the API should say null")


def _content_type(response: requests.Response) -> str:
    """Return the media type an answer names, if it is one: a header may hold anything."""
    named = response.headers.get("Content-Type")
    if named is None:
        return "no content type"
    found = re.match(r"[\w.+-]{1,30}/[\w.+-]{1,30}(?![^\s;,])", named, re.ASCII)
    return found[0] if found else "a content type that is none"


def _cause(error: Exception) -> Any:
    """Return what lies under a broken connection, where requests and urllib3 have wrapped it."""
    packed = error.args[0] if error.args else None
    return packed.args[1] if isinstance(packed, HTTPError) and len(packed.args) > 1 else None


def _hint(response: requests.Response) -> str:
    """Return what a refusal says of itself, if that is one line of text."""
    try:
        message = _decode(response).get("message")
    except (ValueError, AttributeError, RecursionError):
        return ""
    lines = message.strip().splitlines() if isinstance(message, str) else []
    return f": {redaction.excerpt(lines[0], 1_000)}" if lines else ""
