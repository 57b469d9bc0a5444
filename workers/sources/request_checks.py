"""Refuses a prepared request that cannot be sent, would be changed on its way, or is for another host."""

from urllib.parse import urlsplit

import requests
from requests.utils import check_header_validity

from workers.errors import PermanentError
from workers.failures import FailureClass
from workers.sources.address import flaw_of


def refuse_unsendable(prepared: requests.PreparedRequest, origin: str, title: str) -> None:
    """Check a request as it would be sent.

    Parameters:
      prepared(requests.PreparedRequest): With its credentials.
      origin(str): The only origin that may be called, from `origin_of`.
      title(str): The request, for the message.

    Raises:
      PermanentError: It is for another host, would be changed on its way, or cannot be written to a connection.
    """
    try:
        its_origin = origin_of(str(prepared.url))
        for header in prepared.headers.items():  # http.client would refuse it only after a permit was taken
            check_header_validity(header)
            if isinstance(header[1], str):  # requests accepts bytes, too: OAuth1 sets them
                header[1].encode("latin-1")
    except (requests.RequestException, ValueError) as error:
        raise unsendable(title, error) from None
    if its_origin != origin:
        raise PermanentError(f"{title} is not on {origin}: a connector calls its own host only", FailureClass.CONTRACT)
    refuse_flaw(str(prepared.url), title)


def refuse_flaw(address: str, title: str) -> None:
    """Refuse a URL that would be changed on its way, so that another resource would be asked for.

    Raises:
      PermanentError: It would; the message says the repair.
    """
    if flaw := flaw_of(address):
        raise PermanentError(f"{title} is not sent: the address {flaw}", FailureClass.CONTRACT)


def unsendable(title: str, error: Exception) -> PermanentError:
    """Return the error of a request that cannot be sent. It has the exception's type only: its text can quote a key."""
    return PermanentError(f"{title} is not a request that can be sent ({type(error).__name__})", FailureClass.CONTRACT)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, the port always named."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname}:{port}"
