"""Answer each path (the Flask app): limits, faults and delays around every response."""

import ipaddress
from collections.abc import Callable

from flask import Flask, Request, Response, g, json, jsonify, request
from werkzeug.exceptions import Forbidden, HTTPException, NotFound
from werkzeug.wrappers import Response as BaseResponse

from mock_server import checks, faults
from mock_server.catalogue import Catalogue
from mock_server.clock import Clock
from mock_server.config import MockConfig
from mock_server.delays import Delays
from mock_server.headers import limit_headers
from mock_server.limiter import Limiter, Verdict
from mock_server.stats import Stats

MAX_BODY_BYTES = 32 * 1024

# The key under which the app finds whether the caller has closed the connection.
CALLER_IS_GONE = "mock_server.caller_is_gone"
HOLD_STEP_SECONDS = 0.2


def create_app(config: MockConfig, clock: Clock | None = None) -> Flask:
    """Make the mock API as a WSGI app.

    Parameters:
      config: What to serve.
      clock: The time it lives in; the machine's when None.

    Returns:
      The app. Its counts are exact in one process only.
    """
    app = Flask("mock_server", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    clock = clock or Clock()
    limiter = Limiter(config.limits, clock, config.algorithm, config.burst, config.recount_rejected)
    stats = Stats(clock)
    app.register_error_handler(HTTPException, _error)
    _limit_api(app, config, clock, limiter, stats)
    _add_items(app, Catalogue(config.items, config.seed), stats)
    _add_admin(app, limiter, stats)
    return app


def _limit_api(app: Flask, config: MockConfig, clock: Clock, limiter: Limiter, stats: Stats) -> None:
    """Delay, count, refuse and spoil what happens below /api/, and nothing else."""
    delays = Delays(config.latency_seconds, config.jitter_seconds, config.seed)
    dice = faults.FaultDice(config.faults, config.seed)

    @app.before_request
    def judge() -> Response | None:
        if not request.path.startswith("/api/"):
            return None
        g.delay = delays.draw()
        clock.sleep(g.delay.before_count_seconds)
        g.verdict = limiter.admit(_caller(request))
        stats.judged(g.verdict)
        return None if g.verdict.accepted else _too_many_requests(g.verdict)

    @app.after_request
    def send(response: Response) -> Response:
        if "verdict" not in g:
            return response
        fault = dice.draw() if g.verdict.accepted else None
        if fault:
            response = faults.spoil(response, fault, request.environ.get(faults.RESET_CONNECTION))
        response.headers.update(limit_headers(config.headers, g.verdict))
        stats.answered(response.status_code, fault)
        clock.sleep(g.delay.before_answer_seconds)
        if fault == "timeout":
            _hold(clock, config.timeout_seconds, request.environ.get(CALLER_IS_GONE))
        return response


def _add_items(app: Flask, catalogue: Catalogue, stats: Stats) -> None:
    @app.get("/api/items")
    def list_items() -> Response:
        page, per_page = checks.page_asked(request)
        last_page = max(1, -(-catalogue.size // per_page))
        stats.page_listed(page, last_page)
        return jsonify(
            data=catalogue.page(page, per_page),
            current_page=page,
            per_page=per_page,
            total=catalogue.size,
            last_page=last_page,
            # A path, so that no Host header a caller made up comes back in it.
            next_page_url=f"/api/items?page={page + 1}&perPage={per_page}" if page < last_page else None,
        )

    @app.get("/api/items/<item_id>")
    def show_item(item_id: str) -> Response:
        known_id = known(item_id)
        stats.item_asked(known_id)
        return jsonify(catalogue.item(known_id))

    @app.put("/api/items/<item_id>")
    def put_item(item_id: str) -> Response:
        known_id = known(item_id)
        stats.item_put(known_id)
        return jsonify(catalogue.change(known_id, checks.changes_asked(request, known_id)))

    def known(text: str) -> int:
        item_id = checks.item_id_asked(text)
        if item_id is None or item_id not in catalogue:
            stats.unknown_item_asked()
            raise NotFound(f"no such item: ids are the whole numbers from 1 to {catalogue.size}")
        return item_id


def _add_admin(app: Flask, limiter: Limiter, stats: Stats) -> None:
    @app.get("/health")
    def show_health() -> Response:
        return jsonify(status="ok")

    @app.get("/stats")
    def show_stats() -> Response:
        return jsonify(stats.as_dict() | {"windows": limiter.seen()})

    @app.post("/stats/reset")
    def reset_stats() -> Response:
        if not _is_loopback(request.remote_addr):
            raise Forbidden("the counts are reset from this machine only")
        limiter.reset()
        stats.reset()
        return jsonify(status="reset")


def _caller(request: Request) -> str:
    for header in ("Authorization", "X-Api-Key"):
        if value := request.headers.get(header):
            return f"{header} {value}"
    return f"address {request.remote_addr}"


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


def _hold(clock: Clock, seconds: float, caller_is_gone: Callable[[], bool] | None) -> None:
    """Delay a response until its time is over, the server stops or the caller has gone: threads are few."""
    slept = 0.0
    while slept < seconds and clock.sleep(HOLD_STEP_SECONDS):
        slept += HOLD_STEP_SECONDS
        if caller_is_gone and caller_is_gone():
            return


def _too_many_requests(verdict: Verdict) -> Response:
    response = jsonify(message="Too Many Requests", retry_after=verdict.retry_after_seconds)
    response.status_code = 429
    response.headers["Retry-After"] = str(verdict.retry_after_seconds)
    return response


def _error(error: HTTPException) -> BaseResponse:
    # Made from the error's own answer, which may carry headers: Allow, with 405.
    response = error.get_response()
    response.data = json.dumps({"message": error.description or error.name})
    response.mimetype = "application/json"
    return response
