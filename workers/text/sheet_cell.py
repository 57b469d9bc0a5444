"""Cells of a CSV file that a spreadsheet keeps as they are, and runs nothing of; and an id read back from such a cell.

An apostrophe before it makes a cell text. It is visible, and it is not part of the value: `--item` takes it off again.
A text with a formula after a comma, a semicolon, a tab or a blank has one there, too: where the sheet splits at those,
the part behind it is a cell of its own.
"""

import re

_MARK = "'"
#: What may stand before a formula without keeping a sheet from reading one: blanks, quotes, what is not seen.
_BEFORE = r"[\s\"\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2060\ufeff]*"
_SIGN = r"[=+\-@＝＋－＠]"
_FORMULA = re.compile(rf"{_BEFORE}{_SIGN}|[\t\r\n]")
#: A cell begins behind a separator; behind a blank, too, where a sheet splits there: a dash between words begins none.
_BEHIND = rf"(?:(?<=[,;|\t\r\n]){{}}(?={_BEFORE}{_MARK}*{_SIGN})|(?<= ){{}}(?={_MARK}*{_SIGN}\S))"
_SPLIT = re.compile(_BEHIND.replace("{}", ""))
_SPLIT_MARK = re.compile(_BEHIND.replace("{}", _MARK))
#: A number that comes back as it was: spreadsheets keep 15 digits, and no zero before them.
_KEPT_NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: A long number to the base 16 that is none to the base 10, nor one with an exponent.
_HEX = re.compile(r"(?=\w*[abcdf])[0-9a-f]{12,}", re.IGNORECASE)
#: Read as dates, as MAR1 or 3-SEP are: months in the languages that spreadsheets are often set to.
_MONTH = re.compile(
    "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mai|mrz|mär|okt|dez|fev|fév|avr|jui|aoû|déc|ene"
    r"|abr|ago|dic|gen|mag|giu|lug|set|ott|out|mei|mrt|maj)\w{0,7}\.?[\s./-]?\d{0,4}",
    re.IGNORECASE,
)
_WORDS = {"true", "false", "wahr", "falsch", "vrai", "faux", "verdadero", "falso", "vero", "verdadeiro", "waar"}


def harmless(value: object) -> str:
    """Return a value as a cell of which no part is taken for a formula. It may look different in a spreadsheet."""
    text = str(value)
    marked = _SPLIT.sub(_MARK, text)
    return f"{_MARK}{marked}" if _FORMULA.match(text) else marked


def exact(text: str) -> str:
    """Return text as a cell that a spreadsheet keeps letter for letter, and runs nothing of; `read` takes it back."""
    is_safe = _is_kept(text) and not _FORMULA.match(text)
    return _SPLIT.sub(_MARK, text) if is_safe else f"{_MARK}{_SPLIT.sub(_MARK, text)}"


def read(cell: str) -> str:
    """Return the text that `exact` has made this cell of."""
    return _SPLIT_MARK.sub("", cell.removeprefix(_MARK))


def _is_kept(text: str) -> bool:
    """Whether a spreadsheet keeps a text as it is: a plain number, a digest, or what begins as words do."""
    if any(kind.fullmatch(text) for kind in (_KEPT_NUMBER, _UUID, _HEX)):
        return True
    is_word = text[:1].isalpha() and text == text.strip() and text.lower() not in _WORDS
    return is_word and not _MONTH.fullmatch(text)
