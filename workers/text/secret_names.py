"""Decides from a name whether its value is a secret: of a header, a parameter, a field, an attribute, a variable."""

import re
from functools import lru_cache

#: Endings of such names, without punctuation: `X-Shopify-Access-Token`, `client_secret`, `apiKey`.
_ENDINGS = (
    *("token", "secret", "password", "passwd", "passphrase", "passcode", "pwd", "signature", "hmac", "assertion"),
    *("apikey", "accesskey", "authkey", "secretkey", "privatekey", "clientkey", "consumerkey", "subscriptionkey"),
    *("licensekey", "appkey", "applicationkey", "masterkey", "functionskey", "sessionkey", "hapikey"),
    *("authorization", "auth", "credential", "credentials", "cookie", "session", "sessionid", "jwt", "bearer"),
)
#: Names that are too short to be searched as an ending.
_ALONE = {"key", "sig", "sid", "pass", "pw", "pin", "otp", "appid"}
#: A page token is a cursor; an idempotency key and a partition key are no secrets.
_NO_SECRET = re.compile("page|next|prev|cursor|continuation|sync|offset|start|after|before|scroll|idempoten|partition")
_IN_A_HEADER = re.compile("auth(?!or(?!iz))|key|token|secret|session|cookie|signature|passw")
_PUNCTUATION = re.compile("[^a-z0-9]")

#: The value of a parameter named just "key" is a secret from this length on; a shorter one is the name of a field.
SHORTEST_KEY = 8
#: The first word of a header's value that names an authentication scheme; the secret follows it.
SCHEMES = frozenset(
    {"basic", "bearer", "digest", "token", "apikey", "api-key", "key", "oauth", "jwt", "aws4-hmac-sha256", "hawk"}
)
#: Regular expressions for running text, as in "Authorization: Bearer ...": the schemes, and the names, that can stand
#: before a secret there. Fewer than above: most of those words are also ordinary words of a sentence.
SCHEMES_IN_TEXT = "Bearer|Basic|Digest"
NAMES_IN_TEXT = (
    "api[_-]?key|apikey|access[_-]?key|token|secret|password|passwd|pwd|authorization|signature|credentials?"
    "|session[_-]?id|cookie"
)


@lru_cache(maxsize=2048)
def is_secret(name: str, *, header: bool = False) -> bool:
    """Whether a value of this name must be hidden.

    Parameters:
      name(str): Of a header, a parameter of a query or a form, a field of JSON, an attribute, or a variable.
      header(bool): Whether it is a header's, or a variable's. There every "key" is a secret; in a query `sort_key` is
        none.

    *Warning:* the name alone decides. `page_token` and `cursor` are taken for cursors, which are stored unchanged.
    """
    plain = _PUNCTUATION.sub("", name.lower())
    if _NO_SECRET.search(plain):
        return False
    return plain in _ALONE or plain.endswith(_ENDINGS) or (header and bool(_IN_A_HEADER.search(plain)))


def is_secret_parameter(name: str, value: str) -> bool:
    """Whether this parameter or field must be hidden: as `is_secret`, but a short value of "key" is a field's name."""
    is_just_key = _PUNCTUATION.sub("", name.lower()) == "key"
    return is_secret(name) and not (is_just_key and len(value) < SHORTEST_KEY)
