"""Which names of headers, parameters and fields say that their value is a secret."""

import re
from functools import lru_cache

#: What a name ends with, without its punctuation: `X-Shopify-Access-Token`, `client_secret`, `apiKey`.
_ENDINGS = (
    *("token", "secret", "password", "passwd", "passphrase", "passcode", "pwd", "signature", "hmac", "assertion"),
    *("apikey", "accesskey", "authkey", "secretkey", "privatekey", "clientkey", "consumerkey", "subscriptionkey"),
    *("licensekey", "appkey", "applicationkey", "masterkey", "functionskey", "sessionkey", "hapikey"),
    *("authorization", "auth", "credential", "credentials", "cookie", "session", "sessionid", "jwt", "bearer"),
)
#: Names that are too short to be looked for at another's end.
_ALONE = {"key", "sig", "sid", "pass", "pw", "pin", "otp", "appid"}
#: A page's token is a cursor, and the key of an idempotent request or of a partition is no secret.
_NO_SECRET = re.compile("page|next|prev|cursor|continuation|sync|offset|start|after|before|scroll|idempoten|partition")
_IN_A_HEADER = re.compile("auth(?!or(?!iz))|key|token|secret|session|cookie|signature|passw")
_PUNCTUATION = re.compile("[^a-z0-9]")


@lru_cache(maxsize=2048)
def is_secret(name: str, *, header: bool = False) -> bool:
    """Whether a value of this name is to be hidden.

    Parameters:
      name(str): Of a header, a parameter of a query or a form, a field of JSON, or an attribute.
      header(bool): Whether it is a header's. There every "key" is one; in a query `sort_key` is not.

    *Warning:* it goes by the name alone. `page_token` and `cursor` are taken for cursors, which are stored as they are.
    """
    plain = _PUNCTUATION.sub("", name.lower())
    if _NO_SECRET.search(plain):
        return False
    return plain in _ALONE or plain.endswith(_ENDINGS) or (header and bool(_IN_A_HEADER.search(plain)))


def is_key(name: str) -> bool:
    """Whether a name is just "key": often an API's key, and as often the name of a field."""
    return _PUNCTUATION.sub("", name.lower()) == "key"
