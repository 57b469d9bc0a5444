"""Escapes the cells of a CSV file against formulas and reformatting by spreadsheets, and reads an id back from a cell.

A leading apostrophe makes a cell text. It is visible, but not a part of the value: `--item` removes it. Text with a
formula after a comma, a semicolon, a tab or a blank gets an apostrophe there, too: where the spreadsheet splits at
these, the rest is a separate cell.
"""

import re

_MARK = "'"
#: Characters before which a spreadsheet still reads a formula: blanks, quotes, invisible ones.
_BEFORE = r"[\s\"\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2060\ufeff]*"
_SIGN = r"[=+\-@＝＋－＠]"
_FORMULA = re.compile(rf"{_BEFORE}{_SIGN}|[\t\r\n]")
#: A cell begins after a separator; also after a blank, where a sheet splits there. A dash between words begins none.
_BEHIND = rf"(?:(?<=[,;|\t\r\n]){{}}(?={_BEFORE}{_MARK}*{_SIGN})|(?<= ){{}}(?={_MARK}*{_SIGN}\S))"
_SPLIT = re.compile(_BEHIND.replace("{}", ""))
_SPLIT_MARK = re.compile(_BEHIND.replace("{}", _MARK))
#: A number that stays unchanged: spreadsheets keep 15 digits, and no leading zero.
_KEPT_NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: A long hexadecimal number that is not decimal, and has no exponent.
_HEX = re.compile(r"(?=\w*[abcdf])[0-9a-f]{12,}", re.IGNORECASE)
#: Read as dates, such as MAR1 or 3-SEP: months in the languages that spreadsheets often use.
_MONTH = re.compile(
    "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mai|mrz|mär|okt|dez|fev|fév|avr|jui|aoû|déc|ene"
    r"|abr|ago|dic|gen|mag|giu|lug|set|ott|out|mei|mrt|maj)\w{0,7}\.?[\s./-]?\d{0,4}",
    re.IGNORECASE,
)
_WORDS = {"true", "false", "wahr", "falsch", "vrai", "faux", "verdadero", "falso", "vero", "verdadeiro", "waar"}


def harmless(value: object) -> str:
    """Return a value as a cell without a formula. It can look different in a spreadsheet."""
    text = str(value)
    marked = _SPLIT.sub(_MARK, text)
    return f"{_MARK}{marked}" if _FORMULA.match(text) else marked


def exact(text: str) -> str:
    """Return text as a cell that a spreadsheet keeps unchanged, without a formula; `read` returns the text."""
    is_safe = _is_kept(text) and not _FORMULA.match(text)
    return _SPLIT.sub(_MARK, text) if is_safe else f"{_MARK}{_SPLIT.sub(_MARK, text)}"


def read(cell: str) -> str:
    """Return the text from which `exact` made this cell."""
    return _SPLIT_MARK.sub("", cell.removeprefix(_MARK))


def _is_kept(text: str) -> bool:
    """Return whether a spreadsheet keeps a text unchanged: a plain number, a digest, or words."""
    if any(kind.fullmatch(text) for kind in (_KEPT_NUMBER, _UUID, _HEX)):
        return True
    is_word = text[:1].isalpha() and text == text.strip() and text.lower() not in _WORDS
    return is_word and not _MONTH.fullmatch(text)
