"""Reads JSON numbers without loss: ExactFloat is a float that keeps the digits that a float alone would lose."""

from decimal import Decimal, InvalidOperation
from math import isinf

#: A decimal of at most this length (15 digits and a point), without exponent, is exact as a float.
_SHORT = 16
#: Most digits of a number; Python has the same limit for integers.
_LONGEST = 4_300


class NotANumber(ValueError):
    """NaN, Infinity, a number larger than any float, or one with too many digits."""


class ExactFloat(float):
    """A float that also has the number as it was written. Operations return plain floats.

    Parameters:
      literal(str): The number as it is in the JSON, as "12345678901234567.89".

    Attributes:
      literal(str): The same.
    """

    __slots__ = ("literal",)
    literal: str

    def __new__(cls, literal: str) -> "ExactFloat":
        number = super().__new__(cls, literal)
        number.literal = literal
        return number

    def __reduce__(self) -> tuple[type["ExactFloat"], tuple[str]]:
        return type(self), (self.literal,)

    def to_decimal(self) -> Decimal:
        """Return the number with all its digits."""
        return Decimal(self.literal)


def read_float(literal: str) -> float:
    """Convert a JSON number with a point or an exponent.

    Returns:
      float: An ExactFloat if a float is not exactly the same number.

    Raises:
      NotANumber: It is larger than any float, or has too many digits.
    """
    if len(literal) <= _SHORT and "e" not in literal and "E" not in literal:
        return float(literal)
    number = float(literal)
    if repr(number) == literal:  # four times as fast as comparing decimals
        return number
    if isinf(number):
        raise NotANumber(f"{literal[:40]}, a number larger than a float can be: the API should send it as text")
    if len(literal) > _LONGEST:
        raise NotANumber("a number of too many digits")
    try:
        return number if Decimal(literal) == Decimal(repr(number)) else ExactFloat(literal)
    except InvalidOperation:
        raise NotANumber(f"{literal[:40]}, a number with too large an exponent") from None
