"""Redacts a known secret in every encoding, and leaves other text unchanged."""

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from workers.clock import MovedClock, use
from workers.text import known_secrets
from workers.text.redaction import excerpt, redact

SECRETS = {
    "a key": "K-12345678",
    "punctuation": "p@ss/w+rd=&<>%#?",
    "quotes": 'it\'s-"quoted"-here',
    "a backslash": "a\\b\\\\c-0123",
    "words": "correct horse battery staple",
    "letters of other alphabets": "clé-пароль-鍵-🔑-0",
    "short": "a1B2c3",
    "short, in words": "my key",
}


def _escaped(text, form):
    return "".join(form.format(unit) for unit in _units(text))


def _units(text):
    encoded = text.encode("utf-16-be")
    return [int.from_bytes(encoded[n : n + 2], "big") for n in range(0, len(encoded), 2)]


SPELLINGS = {
    "as it is": str,
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded, slashes as they are": quote,
    "percent-encoded in small letters": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "percent-encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "plus-encoded": quote_plus,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, not in ASCII": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON with escaped slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON with each character escaped": lambda text: _escaped(text, "\\u{:04x}"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "JSON in a query": lambda text: quote_plus(json.dumps(text)[1:-1]),
    "HTML": html.escape,
    "HTML in numbers": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "HTML in hexadecimal numbers": lambda text: "".join(f"&#x{ord(one):X};" for one in text),
    "the repr of text": lambda text: repr(text)[1:-1],
    "the ascii of text": lambda text: ascii(text)[1:-1],
    "the repr of bytes": lambda text: repr(text.encode())[2:-1],
    "the repr of a repr": lambda text: repr(repr(text)[1:-1])[1:-1],
}


@pytest.fixture(autouse=True)
def _clean(environment):
    yield


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_hidden_in_each_spelling(secret, spell):
    known_secrets.note([secret])

    assert redact(f"the key {spell(secret)} may not, {spell(secret)}") == "the key *** may not, ***"
    assert redact(f'{{"key":"{spell(secret)}"}}') == '{"key":"***"}'


@pytest.mark.parametrize("before", ["", "u:", "us:", "use:", "a longer user: "])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("secret", ["K-12345678", "p@ss/w+rd=&<>%#?", "ÿÿÿÿþþþþ~~~~", "hunter22"])
def test_a_secret_is_hidden_in_the_base64_of_what_it_stands_in(secret, encode, before):
    known_secrets.note([secret])
    encoded = encode(f"{before}{secret} and more".encode()).decode()

    shown = redact(f"it was {encoded}")

    assert "***" in shown
    left = shown.removeprefix("it was ").split("***")
    assert len(left) == 2 and len("".join(left)) <= len(encoded) - len(secret)


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("item", "12 items of an itemized list"),
        ("123", "1234 of 41230, item_123"),
        ("abc", "abcd xabc"),
        ("K-12345678", "K-1234567 and K 12345678"),
        ("ab", "an ab of two characters is left alone"),
    ],
)
def test_a_short_secret_takes_nothing_out_of_other_words(secret, text):
    known_secrets.note([secret])

    assert redact(text) == text


@pytest.mark.parametrize(
    "text", ["50%", "100%41 done", "C:\\users\\new", "a & b &amp; c &nosuch; d", "\\u12", "%zz", "1+1"]
)
def test_what_only_looks_encoded_stays_as_it_is(text):
    known_secrets.note(["K-12345678"])

    assert redact(text) == text


def test_the_end_of_a_text_shows_no_beginning_of_a_secret():
    known_secrets.note(["K-12345678-and-more", "correct horse battery staple"])

    for secret in ("K-12345678-and-more", "correct horse battery staple", "K%2D12345678%2dand%2Dmore"):
        for shift in range(12 + len(secret)):
            text = "x" * (1_200 - shift) + secret + " and so on" * 200
            shown = excerpt("eyJhbGciOi1234.eyJzdWIiOi1234" + "y" * 1_000 + " " + text[1_000 + 40 :], 200)
            assert not any(part in shown for part in ("K-12", "K%2D", "corr", "1234")), shift


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /bot1:AAExampleKey0/getMe (Caused",
            "HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /***/getMe (Caused",
        ),
        (
            "404 Client Error for url: https://h/v1/sk_live_0123456789abcdef/orders",
            "404 Client Error for url: https://h/v1/***/orders",
        ),
        (
            "https://hooks.h/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
            "https://hooks.h/services/T00000000/B00000000/***",
        ),
        ("https://h/v1/order-lines/2024-01/12345678", "https://h/v1/order-lines/2024-01/12345678"),
        ("with url: /x?key=AIzaSyA-12345&page=2 (", "with url: /x?key=***&page=2 ("),
        ("/x?sig=abc&cursor=CAUQAA&key=name", "/x?sig=***&cursor=CAUQAA&key=name"),
        ("/x?X-Amz-Signature=0f0f0f&appid=0123456789", "/x?X-Amz-Signature=***&appid=***"),
    ],
)
def test_an_address_in_a_text_is_shown_without_what_looks_like_a_key(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


def test_what_a_request_brought_is_forgotten_an_hour_after_it_was_seen_last(environment):
    clock = MovedClock()
    use(clock)
    known_secrets.note(["token-of-noon"])
    clock.sleep(3_000)
    known_secrets.note(["token-of-noon"])
    clock.sleep(3_000)
    assert redact("it is token-of-noon") == "it is ***"

    clock.sleep(601)

    assert redact("it is token-of-noon") == "it is token-of-noon"


def test_a_thousand_of_them_are_remembered_the_latest_ones(environment):
    use(MovedClock())
    known_secrets.note(["the-token-in-use"])
    for number in range(20_000):
        known_secrets.note([f"signature-{number}-x"])
        if number % 100 == 0:
            known_secrets.clock.current().sleep(1)
            known_secrets.note(["the-token-in-use"])

    assert redact("the-token-in-use, signature-19999-x, signature-0-x") == "***, ***, signature-0-x"
    assert len(known_secrets._recent) <= 1_001


def test_an_owner_s_secrets_are_hidden_as_long_as_it_lives(environment):
    clock = MovedClock()
    use(clock)
    current = ["renewed-0001"]
    owner = known_secrets.OwnedSecrets(["of-the-owner"], lambda: current)
    clock.sleep(10_000)
    assert redact("of-the-owner renewed-0001") == "*** ***"
    current[:] = ["renewed-0002"]
    assert redact("renewed-0002") == "***"

    del owner

    assert redact("of-the-owner renewed-0002") == "of-the-owner renewed-0002"


def test_an_owner_that_cannot_say_its_secrets_keeps_nothing_from_being_shown(environment):
    def fail():
        raise RuntimeError("changed size during iteration")

    owner = known_secrets.OwnedSecrets(["of-the-owner"], fail)

    assert redact("of-the-owner") == "***"
    del owner
