"""Write the response headers in which APIs state their limits and what remains of them."""

from mock_server.limiter import Reading, Verdict
from mock_server.limits import NANOSECONDS, Window

STYLES = {
    "x-ratelimit": "X-RateLimit-Limit, -Remaining and -Reset (epoch seconds), of the tightest window",
    "ratelimit": "RateLimit and RateLimit-Policy of every window, as draft 11 has them",
    "ratelimit-07": "RateLimit of the tightest window and RateLimit-Policy of all, as draft 7 had them",
    "shopify": "X-Shopify-Shop-Api-Call-Limit: used/limit, of the tightest window",
    "none": "none; a 429 says Retry-After in every style",
}


def limit_headers(style: str, verdict: Verdict) -> dict[str, str]:
    """Return the headers an answer carries; none without limits.

    A limit that a remaining number is measured against is what the window lets in at once: with a small burst, the
    burst. The policies state the limit itself. Seconds are rounded up: these headers have whole ones only.

    Parameters:
      style: One of STYLES.
      verdict: What was said to the request.
    """
    tightest = verdict.tightest
    if tightest is None:
        return {}
    match style:
        case "x-ratelimit":
            return {
                "X-RateLimit-Limit": str(tightest.capacity),
                "X-RateLimit-Remaining": str(tightest.remaining),
                "X-RateLimit-Reset": str(verdict.reset_epoch_seconds(tightest)),
            }
        case "ratelimit":
            return {
                "RateLimit-Policy": ", ".join(_policy(reading.window) for reading in verdict.readings),
                "RateLimit": ", ".join(_standing(reading) for reading in verdict.readings),
            }
        case "ratelimit-07":
            return {
                "RateLimit-Policy": ", ".join(_old_policy(reading.window) for reading in verdict.readings),
                "RateLimit": _old_standing(tightest),
            }
        case "shopify":
            used = tightest.capacity - tightest.remaining
            return {"X-Shopify-Shop-Api-Call-Limit": f"{used}/{tightest.capacity}"}
    return {}


def _policy(window: Window) -> str:
    return f"{_name(window)};q={window.limit};w={_whole_seconds(window)}"


def _standing(reading: Reading) -> str:
    return f"{_name(reading.window)};r={reading.remaining};t={reading.reset_seconds}"


def _old_policy(window: Window) -> str:
    return f"{window.limit};w={_whole_seconds(window)}"


def _old_standing(reading: Reading) -> str:
    return f"limit={reading.capacity}, remaining={reading.remaining}, reset={reading.reset_seconds}"


def _name(window: Window) -> str:
    return f'"{window.limit}-per-{window.seconds:.15g}s"'


def _whole_seconds(window: Window) -> int:
    return -(-window.length_ns // NANOSECONDS)
