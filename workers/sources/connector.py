"""Sends requests to one remote API, each with a permit of its budget, and maps bad responses to errors."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from workers.connections.redis_client import redis_client
from workers.errors import BudgetClosed, ConfigurationError, DependencyDown, PermanentError, RateLimited, RetryableError
from workers.failures import FailureClass
from workers.limiter import number_checks
from workers.limiter.budget import Budget, Limit, Profile
from workers.limiter.permits import PermitClient
from workers.limiter.rate_limiter import RateLimiter
from workers.limiter.redis_ledger import FRESH_SECONDS, Watermark
from workers.settings import get_settings
from workers.sources import (
    body_decoding,
    body_reading,
    missing_response,
    request_auth,
    request_checks,
    request_secrets,
    status_errors,
)
from workers.sources.address import flaw_of, join, with_query
from workers.sources.exact_float import NotANumber
from workers.sources.request_purpose import asked
from workers.sources.transport import DeadlineAdapter, new_connection, sent_by
from workers.text import known_secrets, redaction
from workers.version import VERSION

_NO_CONTENT = {204, 205}
#: Methods whose request can be sent twice without doing anything twice.
_IDEMPOTENT = {"GET", "HEAD"}

#: Default headers; a connector's own headers override these, and a request's headers override both.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", "User-Agent": f"sluice/{VERSION}"}


class _Stale(RetryableError):
    """A reused connection was closed by the server without a byte of this response."""


class Connector:
    """One remote API: its address, its credentials and its rate limits.

    Parameters:
      name(str): The name of its budget. All connectors of one name share one budget, in every process.
      base_url(str): http:// or https://. Relative request URLs are joined to it, and no other host is ever called. Its
        query (`?api_key=...`) is added to every request, except parameters that the request sets itself.
      limits(Sequence[Limit]): The API's rate limits; every one of them holds.
      headers(Mapping[str, str]): Sent with every request; they override the defaults (`User-Agent: sluice/...`).
      auth(AuthBase | tuple[str, str] | None): As `requests` takes it. An exception in it is retried; each request that
        its response hooks send, as Digest does, takes a permit of its own.
      secrets(str | Sequence[str]): Further texts that must never be logged, stored or shown, for instance a key in a
        path. Credentials in headers, `auth`, the query and parameters with a secret's name are hidden without it.
      timeout_seconds(float | None): Total time of one request; default SLUICE_REQUEST_TIMEOUT_SECONDS.
      share(float), profile(str), trust_server(bool): As `Budget` takes them.
      timeout(float | None): The old name of `timeout_seconds`; deprecated.

    Raises:
      ConfigurationError: The URL is not http(s), the limits are invalid, `auth` is of another type, or a secret is too
        short to be hidden.
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
        timeout_seconds: float | None = None,
        share: float = 1.0,
        profile: Profile = "auto",
        trust_server: bool = False,
        timeout: float | None = None,
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
        if timeout is not None:
            warnings.warn("Connector(timeout=...) is now timeout_seconds", DeprecationWarning, stacklevel=2)
            timeout_seconds = timeout if timeout_seconds is None else timeout_seconds
        self.name = name
        self.base_url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
        self._query = parts.query
        self.budget = Budget(name, limits, share=share, profile=profile, trust_server=trust_server)
        self.headers = dict(headers or {})
        self.auth = auth
        named_secrets = request_secrets.given(secrets, name)
        self._has_named_secrets = bool(named_secrets)
        self._hidden = known_secrets.OwnedSecrets(
            [*named_secrets, *request_secrets.of_address(base_url)],
            lambda: [*request_secrets.of_headers(self.headers), *request_secrets.of_auth(self.auth)],
        )
        self._timeout_seconds = (
            None if timeout_seconds is None else number_checks.timeout(timeout_seconds, f"Connector {name!r}")
        )
        self._origin = self._origin_as_sent()
        self._limiter: RateLimiter | None = None
        self._adapter = DeadlineAdapter(pool_connections=4, pool_maxsize=256, max_retries=0)

    def _origin_as_sent(self) -> str:
        """Return the origin of the base URL as the HTTP client spells it: an international host name is sent in ASCII.

        Raises:
          ConfigurationError: The URL cannot be sent, or would be changed before it is sent.
        """
        try:
            flaw = flaw_of(self.base_url)
            origin = request_checks.origin_of(str(requests.Request("GET", self.base_url).prepare().url))
        except (requests.RequestException, ValueError) as error:
            flaw = f"is not an address that can be called ({type(error).__name__})"
        if flaw:
            raise ConfigurationError(f"Connector {self.name!r}: base_url {redaction.redact(self.base_url)!r} {flaw}")
        return origin

    @property
    def limiter(self) -> RateLimiter:
        """The rate limiter of its budget, on the Redis of the settings; created at the first use."""
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
        """The total time of one request, in seconds: its own, or SLUICE_REQUEST_TIMEOUT_SECONDS."""
        return self._timeout_seconds or get_settings().request_timeout_seconds

    @property
    def timeout(self) -> float | None:
        """The old name of `timeout_seconds`; deprecated. None where the connector has no timeout of its own."""
        warnings.warn("Connector.timeout is now timeout_seconds", DeprecationWarning, stacklevel=2)
        return self._timeout_seconds

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        warnings.warn("Connector.timeout is now timeout_seconds", DeprecationWarning, stacklevel=2)
        self._timeout_seconds = None if seconds is None else number_checks.timeout(seconds, f"Connector {self.name!r}")

    @property
    def sends_credentials(self) -> bool:
        """Whether its requests carry a secret: `auth`, `secrets`, or a header or query parameter with a secret's name.

        *Warning:* a key in the path of `base_url` counts only if `secrets` names it.
        """
        return (
            self.auth is not None
            or self._has_named_secrets
            or request_secrets.has_secret_name(self.headers, self._query)
        )

    def permit_client(
        self, run_id: int | None = None, name: str | None = None, watermark: Watermark | None = None
    ) -> PermitClient:
        """Return a client that takes permits of this API's budget, for one thread.

        Parameters:
          run_id(int | None), name(str | None): As `RateLimiter.permit_client` takes them.
          watermark(Watermark | None): Where the limiter stores what must survive the loss of Redis; the first one given
            is kept.
        """
        self.limiter.ledger.watermark = self.limiter.ledger.watermark or watermark
        return self.limiter.permit_client(run_id, name)

    def weigh(self, request: requests.Request) -> int:
        """Return as how many requests the API counts this one. Override it if some requests cost more than others."""
        return 1

    def get_json(self, request: requests.Request, permits: PermitClient) -> Any:
        """Send `request` and return its decoded JSON body.

        The JSON is UTF-8, UTF-16 or UTF-32, or in the charset of its Content-Type. Parameters and errors are those of
        `send`.

        Raises:
          RetryableError: The body is not valid JSON; the next response can be complete.
          PermanentError: There is no body (204), it has another format (JSON lines, CSV, XML), or it has a value that
            cannot be used: NaN, a number larger than any float or with too many digits, too deep nesting.
        """
        response = self.send(request, permits)
        answered = f"{_title(request)} answered {response.status_code}"
        if response.status_code in _NO_CONTENT:
            raise PermanentError(f"{answered}: the response has no body", FailureClass.BAD_DATA)
        try:
            return body_decoding.decode(response)
        except NotANumber as error:
            raise PermanentError(f"{answered} with {error}", FailureClass.BAD_DATA) from None
        except RecursionError:
            raise PermanentError(f"{answered} with JSON that is nested too deeply", FailureClass.BAD_DATA) from None
        except ValueError:
            kind = body_decoding.content_type(response)
            other = body_decoding.other_format(response)
            if other:
                why = f"{answered} with {other} ({kind}) instead of JSON: ask for JSON, by the URL or an Accept header"
                raise PermanentError(why, FailureClass.CONTRACT) from None
            raise RetryableError(f"{answered} with a body that is not JSON ({kind})") from None

    def send(self, request: requests.Request, permits: PermitClient) -> requests.Response:
        """Send one request with one permit, and return its 2xx response.

        A GET or HEAD on a reused connection that the server has closed is sent once more, with a second permit; the
        first permit stays taken as long as the API can count the request. Each request of a response hook takes a
        permit of its own, too.

        Parameters:
          request(requests.Request): A relative URL is joined to the base URL. Redirects are never followed.
          permits(PermitClient): Takes the permit; it sleeps if the wait is short.

        Returns:
          requests.Response: Its body has been read completely, up to SLUICE_MAX_BODY_BYTES.

        Raises:
          RateLimited: No permit in time, or the API refused: 429; Retry-After on 403, 408, 420, 425 or a 5xx; no
            request left in the window. A refusal pauses the whole budget.
          LongWait: The API refused, and asked for a wait above 25 hours (or SLUICE_LONGEST_PAUSE_SECONDS, where that is
            more).
          RetryableError: A timeout, a connection error, a 5xx, or an exception in the auth object.
          AuthError: 401 or 403.
          NotModified: 304 to a conditional request.
          PermanentError: Any other 4xx, a redirect, a body over the size limit or with an unknown Content-Encoding, a
            URL on another host, or one that would be changed before it is sent.
          DependencyDown: Redis does not answer, so there is no permit.
        """
        prepared = self._prepare(request)
        try:
            response = self._send_once(prepared, request, permits)
        except _Stale as stale:
            if prepared.method not in _IDEMPOTENT or not isinstance(prepared.body, (str, bytes, type(None))):
                raise
            response = self._send_on_new_connection(request, permits, stale)
        send = partial(self._send_for_hook, request=request, permits=permits)
        response = request_auth.run_hooks(response, send, _title(request), stream=True, timeout=self.timeout_seconds)
        error = status_errors.error_of(response, _title(request), self.name)
        if error:
            raise error
        return response

    def _send_on_new_connection(
        self, request: requests.Request, permits: PermitClient, stale: _Stale
    ) -> requests.Response:
        """Sign a request again, because a signature can be valid only once, and send it on a new connection."""
        try:
            with new_connection():
                return self._send_once(self._prepare(request), request, permits)
        except BudgetClosed:  # the first request was sent and has no response: this counts as a failed attempt
            raise stale from None

    def _send_for_hook(
        self, prepared: requests.PreparedRequest, request: requests.Request, permits: PermitClient
    ) -> requests.Response:
        self._refuse_unsendable(prepared, request)  # the hook can have changed anything
        permits.ask_again()
        return self._send_once(prepared, request, permits)

    def _send_once(
        self, prepared: requests.PreparedRequest, request: requests.Request, permits: PermitClient
    ) -> requests.Response:
        """Send one request with one permit; return its response with any status, its body read."""
        permit = permits.acquire(self.timeout_seconds, self.weigh(request))
        try:
            timeout: Any = Timeout(total=self.timeout_seconds)  # for connecting and reading together
            # The process can be suspended (SIGSTOP) here: nothing is sent after the permit has expired.
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
            body_reading.read(response, _title(request), self.timeout_seconds)
        except (RetryableError, PermanentError):
            if 200 <= response.status_code < 300:
                raise  # an error status is enough without its body
        return response

    def _prepare(self, request: requests.Request) -> requests.PreparedRequest:
        """Return the signed request, ready to be sent.

        Raises:
          PermanentError: It cannot be sent, would be changed before it is sent, or is for another host.
        """
        address = with_query(join(self.base_url, str(request.url)), self._query, request.params)
        request_checks.refuse_flaw(address, _title(request))  # before requests drops `..`
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
            known_secrets.note(request_secrets.of_auth(request.auth))  # its exceptions can quote them
            request_auth.sign(full, request.auth or self.auth, _title(request))
        except (requests.RequestException, ValueError) as error:
            raise request_checks.unsendable(_title(request), error) from None
        self._refuse_unsendable(full, request)  # the auth object can have changed it
        return full

    def _refuse_unsendable(self, prepared: requests.PreparedRequest, request: requests.Request) -> None:
        """Check the prepared request, which is not always what was asked for; hide the secrets that auth has renewed.

        Raises:
          PermanentError: It is for another host, would be changed before it is sent, or cannot be sent.
        """
        request_checks.refuse_unsendable(prepared, self._origin, _title(request))
        known_secrets.note(request_secrets.of_request(prepared))


def _title(request: requests.Request) -> str:
    """Name a request without its URL: a path can hold a key just as a query can."""
    return asked(f"the {request.method or 'GET'} request")
