"""Reads the body of a response, decompressed once at most and bounded in size."""

import http.client
import zlib

import requests
from urllib3.exceptions import HTTPError

from workers.errors import PermanentError, RetryableError
from workers.failures import FailureClass
from workers.settings import get_settings
from workers.sources import missing_response

#: Decompressed: none of these formats can demand much memory at once from a few bytes of input.
_DECOMPRESSED = {"gzip", "x-gzip", "deflate"}
#: Known, and refused. Any other word, for instance "UTF-8", is a mistake of the server: the body is read unchanged.
_REFUSED = {"br", "zstd", "compress", "x-compress"}

#: What reading a body can raise; urllib3 lets the last two through where the compressed data is damaged.
_BROKEN = (requests.RequestException, HTTPError, http.client.HTTPException, ValueError, zlib.error)


def read(response: requests.Response, title: str, timeout_seconds: float) -> None:
    """Read the body into `response.content`, and close the response.

    Parameters:
      response(requests.Response): From a request with `stream=True`.
      title(str): The request, for messages.
      timeout_seconds(float): How long the request was allowed to take, for messages.

    Raises:
      RetryableError: The body is not complete, or its compressed data is damaged.
      PermanentError: It is larger than SLUICE_MAX_BODY_BYTES, or has an encoding that was not asked for.
    """
    limit, body = get_settings().max_body_bytes, bytearray()
    response._content = b""
    try:
        if not _is_accepted(response.headers.get("Content-Encoding", "")):
            raise PermanentError(
                f"{title}: the body has a Content-Encoding that was not asked for: let the API send it plain, "
                f"or as gzip or deflate, once",
                FailureClass.CONTRACT,
            )
        for chunk in response.iter_content(65_536):
            body += chunk
            if len(body) > limit:
                raise PermanentError(
                    f"{title}: the body is over SLUICE_MAX_BODY_BYTES ({limit:,} bytes)", FailureClass.CONTRACT
                )
    except _BROKEN as error:
        raise RetryableError(f"{title}: the answer {missing_response.why_cut(error, timeout_seconds)}") from None
    finally:
        response.close()
    response._content = bytes(body)


def _is_accepted(encoding: str) -> bool:
    """Whether a Content-Encoding is at most one accepted compression: each nested one can grow it a thousandfold."""
    words = [word.strip() for word in encoding.lower().split(",")]
    compressions = [word for word in words if word in _DECOMPRESSED | _REFUSED]
    return len(compressions) <= 1 and not _REFUSED & set(compressions)
