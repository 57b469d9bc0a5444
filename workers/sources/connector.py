"""Connector: one remote API. It takes a permit for every request it sends, and sorts each answer by what to do next."""

import http.client
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from requests.utils import check_header_validity
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from workers.connections.redis_client import redis_client
from workers.errors import BudgetClosed, ConfigurationError, DependencyDown, PermanentError, RateLimited, RetryableError
from workers.failures import FailureClass
from workers.limiter import number_checks
from workers.limiter.budget import Budget, Limit, Profile
from workers.limiter.ledger import FRESH_SECONDS, Watermark
from workers.limiter.permits import PermitClient
from workers.limiter.rate_limiter import RateLimiter
from workers.settings import get_settings
from workers.sources import body_decoding, missing_response, request_auth, request_secrets, status_errors
from workers.sources.address import flaw_of, join, with_query
from workers.sources.exact_float import NotANumber
from workers.sources.request_purpose import asked
from workers.sources.transport import DeadlineAdapter, new_connection, sent_by
from workers.text import known_secrets, redaction
from workers.version import VERSION

_NO_CONTENT = {204, 205}
#: Asking again does not do twice what these ask for.
_REPEATABLE = {"GET", "HEAD"}

#: What is unpacked: none of these says what it needs memory for before it is asked for so many bytes.
_UNPACKED = {"gzip", "x-gzip", "deflate"}
#: What could be unpacked, and is not. Other words, as "UTF-8", are mistakes: the body is taken as it is.
_PACKED = {"br", "zstd", "compress", "x-compress"}

#: Sent with every request; a connector's own headers, and then the request's, come before them.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", "User-Agent": f"sluice/{VERSION}"}

#: What reading a body may raise; the last two come bare out of urllib3 where the packing is broken.
_BROKEN = (requests.RequestException, HTTPError, http.client.HTTPException, ValueError, zlib.error)


class _Stale(RetryableError):
    """The connection had answered before, and was closed without a byte of this answer."""


class Connector:
    """One remote API: where it is, how to authenticate, how much it allows.

    Parameters:
      name(str): The budget's name. Connectors of one name share one budget, in every process.
      base_url(str): http:// or https://; relative request URLs are joined to it, and no other host is ever called. The
        query of it, as `?api_key=...`, is sent with every request that does not name the same parameters.
      limits(Sequence[Limit]): What the API allows; all of them hold.
      headers(Mapping[str, str]): Sent with every request; they come before ours (`User-Agent: sluice/...` and others).
      auth(AuthBase | tuple[str, str] | None): As `requests` takes it. What it raises is worth another attempt; what
        its response hooks send, as Digest does, takes a permit each.
      secrets(str | Sequence[str]): What else must never be logged, stored or shown, as a key in a path. What headers
        and auth hold, the query, and each request's parameters of a secret name are hidden without it.
      timeout(float | None): Seconds one request may take in all; default SLUICE_REQUEST_TIMEOUT_SECONDS.
      share(float), profile(str), trust_server(bool): As `Budget` takes them.

    Raises:
      ConfigurationError: The URL is not an http(s) one, the limits cannot be, `auth` is none, or a secret is too short
        to be hidden.
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
        if not (auth is None or callable(auth) or (isinstance(auth, tuple) and len(auth) == 2)):
            raise ConfigurationError(
                f"Connector {name!r}: auth must be (user, password) or an object of requests.auth.AuthBase, not a "
                f"{type(auth).__name__}; a token goes into headers"
            )
        self.name = name
        self.base_url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
        self._query = parts.query
        self.budget = Budget(name, limits, share=share, profile=profile, trust_server=trust_server)
        self.headers = dict(headers or {})
        self.auth = auth
        self._hidden = known_secrets.Held(
            [*request_secrets.given(secrets, name), *request_secrets.of_address(base_url)],
            lambda: [*request_secrets.of_headers(self.headers), *request_secrets.of_auth(self.auth)],
        )
        self.timeout = None if timeout is None else number_checks.timeout(timeout, f"Connector {name!r}")
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

    def permit_client(
        self, run_id: int | None = None, name: str | None = None, watermark: Watermark | None = None
    ) -> PermitClient:
        """Return one thread's place in the line of this API's budget.

        Parameters:
          run_id(int | None), name(str | None): As `RateLimiter.permits` takes them.
          watermark(Watermark | None): What outlives Redis, for the limiter; the first one given is kept.
        """
        self.limiter.ledger.watermark = self.limiter.ledger.watermark or watermark
        return self.limiter.permit_client(run_id, name)

    def weigh(self, request: requests.Request) -> int:
        """Return as how many requests the API counts this one. Override it where some cost more than others."""
        return 1

    def get_json(self, request: requests.Request, permits: PermitClient) -> Any:
        """Send `request` and return its decoded JSON body.

        JSON is UTF-8, UTF-16 or UTF-32, or what its Content-Type names as the charset. Parameters and errors are
        those of `send`.

        Raises:
          RetryableError: The body is no JSON: the next one may be whole.
          PermanentError: There is none (204), or it is of another format (JSON lines, CSV, XML), or it holds what
            cannot be used: NaN, a number beyond all floats or of too many digits, endless nesting.
        """
        response = self.send(request, permits)
        said = f"{_title(request)} answered {response.status_code}"
        if response.status_code in _NO_CONTENT:
            raise PermanentError(f"{said}: it has no content", FailureClass.BAD_DATA)
        try:
            return body_decoding.decode(response)
        except NotANumber as error:
            raise PermanentError(f"{said} with {error}", FailureClass.BAD_DATA) from None
        except RecursionError:
            raise PermanentError(f"{said} with JSON that is nested too deeply", FailureClass.BAD_DATA) from None
        except ValueError:
            kind = body_decoding.content_type(response)
            other = body_decoding.other_format(response)
            if other:
                why = f"{said} with {other} ({kind}) and not with JSON: ask for that, by an address or an Accept header"
                raise PermanentError(why, FailureClass.CONTRACT) from None
            raise RetryableError(f"{said} with a body that is not JSON ({kind})") from None

    def send(self, request: requests.Request, permits: PermitClient) -> requests.Response:
        """Send one request with one permit, and return its response, a 2xx.

        A GET or HEAD whose connection turns out to have been closed is sent once more, with another permit: the first
        one counts as long as the API may count it. So does each request that a response hook makes.

        Parameters:
          request(requests.Request): A relative URL is joined to the base URL. Redirects are never followed.
          permits(PermitClient): Whose permit it takes; sleeps for it when the wait is short.

        Returns:
          requests.Response: Its body has been read whole, up to SLUICE_MAX_BODY_BYTES.

        Raises:
          RateLimited: No permit in time, or the API refused: 429; Retry-After on 403, 408, 420, 425 or a 5xx; nothing
            left (the whole budget then pauses).
          LongWait: It refused, and asked for a wait above SLUICE_LONGEST_PAUSE_SECONDS.
          RetryableError: Timeout, connection trouble, 5xx; the auth object raised something.
          AuthError: 401 or 403.
          NotModified: 304 to a conditional request.
          PermanentError: Any other refusal, a redirect, a body over the size limit or packed in an unknown way, an
            address of another host or one that would be changed on its way.
          DependencyDown: Redis does not answer, so there is no permit.
        """
        prepared = self._prepare(request)
        try:
            response = self._ask(prepared, request, permits)
        except _Stale as stale:
            if prepared.method not in _REPEATABLE or not isinstance(prepared.body, (str, bytes, type(None))):
                raise
            response = self._ask_anew(request, permits, stale)
        ask = partial(self._ask_for_hook, request=request, permits=permits)
        response = request_auth.run_hooks(response, ask, _title(request), stream=True, timeout=self.timeout_seconds)
        error = status_errors.error_of(response, _title(request), self.name)
        if error:
            raise error
        return response

    def _ask_anew(self, request: requests.Request, permits: PermitClient, stale: _Stale) -> requests.Response:
        """Ask once more on a new connection; signed anew, for a signature may be good for one request."""
        try:
            with new_connection():
                return self._ask(self._prepare(request), request, permits)
        except BudgetClosed:  # the request was sent, and has no answer: an attempt
            raise stale from None

    def _ask_for_hook(
        self, prepared: requests.PreparedRequest, request: requests.Request, permits: PermitClient
    ) -> requests.Response:
        self._refuse_unsendable(prepared, request)  # it may have changed anything
        permits.ask_again()
        return self._ask(prepared, request, permits)

    def _ask(
        self, prepared: requests.PreparedRequest, request: requests.Request, permits: PermitClient
    ) -> requests.Response:
        """Send one request with one permit; return its answer, whatever its status, with its body read."""
        permit = permits.acquire(self.timeout_seconds, self.weigh(request))
        try:
            timeout: Any = Timeout(total=self.timeout_seconds)  # connecting and waiting together
            # A process may be stopped between the two: then nothing is sent that the permit may not cover any more.
            with sent_by(permit.granted_at + FRESH_SECONDS + self.timeout_seconds):
                response = self._adapter.send(prepared, stream=True, timeout=timeout)
        except (requests.RequestException, HTTPError) as error:
            never_sent = missing_response.why_never_sent(error, self._origin, self.timeout_seconds)
            if never_sent:
                permits.unsent(permit)
            why = never_sent or missing_response.why_unanswered(error, self._origin, self.timeout_seconds)
            kind = _Stale if missing_response.is_stale(error) else RetryableError
            raise kind(f"{_title(request)}: {why}") from None
        try:
            permits.report(permit, response.status_code, response.headers)
        except (RateLimited, DependencyDown):
            response.close()
            raise
        try:
            self._read(response, request)
        except (RetryableError, PermanentError):
            if 200 <= response.status_code < 300:
                raise  # of a refusal the status says enough
        return response

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
                headers={**_HEADERS, **self.headers, **(request.headers or {})},
                files=request.files,
                params=request.params,
                data=request.data,
                json=request.json,
                cookies=request.cookies,
                hooks=request.hooks,
            ).prepare()
            known_secrets.note(request_secrets.of_auth(request.auth))  # what it raises may quote them
            request_auth.sign(full, request.auth or self.auth, _title(request))
        except (requests.RequestException, ValueError) as error:
            raise _unsendable(request, error) from None
        self._refuse_unsendable(full, request)  # an auth object may have changed it
        return full

    def _refuse_unsendable(self, prepared: requests.PreparedRequest, request: requests.Request) -> None:
        """Look at what is sent: the prepared request, for it is not always what was asked for.

        Raises:
          PermanentError: It is on another host, would be changed on its way, or cannot be written to a connection.
        """
        try:
            origin = _origin(str(prepared.url))
            for header in prepared.headers.items():  # http.client would find out only with a permit taken
                check_header_validity(header)
                if isinstance(header[1], str):  # requests takes bytes, too: OAuth1 sets them
                    header[1].encode("latin-1")
        except (requests.RequestException, ValueError) as error:
            raise _unsendable(request, error) from None
        if origin != self._origin:
            raise PermanentError(
                f"{_title(request)} is not on {self._origin}: a connector calls its own host only",
                FailureClass.CONTRACT,
            )
        _refuse_flaw(request, str(prepared.url))
        known_secrets.note(request_secrets.of_request(prepared))  # with what auth has renewed

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
            raise RetryableError(
                f"{_title(request)}: the answer {missing_response.why_cut(error, self.timeout_seconds)}"
            ) from None
        finally:
            response.close()
        response._content = bytes(body)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _refuse_flaw(request: requests.Request, address: str) -> None:
    if flaw := flaw_of(address):
        raise PermanentError(f"{_title(request)} is not sent: the address {flaw}", FailureClass.CONTRACT)


def _unsendable(request: requests.Request, error: Exception) -> PermanentError:
    """Return why a request cannot be sent. Not the error's text: it may quote a header."""
    what = f"{_title(request)} is not a request that can be sent ({type(error).__name__})"
    return PermanentError(what, FailureClass.CONTRACT)


def _title(request: requests.Request) -> str:
    """Name a request without its address: a path may hold a key as a query does."""
    return asked(f"the {request.method or 'GET'} request")


def _is_unpacked(encoding: str) -> bool:
    words = [word.strip() for word in encoding.lower().split(",")]
    packings = [word for word in words if word in _UNPACKED | _PACKED]
    return len(packings) <= 1 and not _PACKED & set(packings)
