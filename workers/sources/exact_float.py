"""ExactFloat: a float that keeps the digits the API wrote, where the float alone has lost some."""

from decimal import Decimal, InvalidOperation
from math import isinf

#: A decimal of so few digits, without an exponent, is printed by its float as it was written (15 digits and a point).
_SHORT = 16
#: Digits of the longest number that is read; Python has the same limit for whole numbers.
_LONGEST = 4_300


class NotANumber(ValueError):
    """NaN, Infinity, a number that is larger than any float, or of more digits than are read."""


class ExactFloat(float):
    """A float in every operation, whose results are plain floats; beside it the number as it was written.

    Parameters:
      literal(str): The number as JSON has it, as in "12345678901234567.89".

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
    """Return the number that a JSON literal with a point or an exponent stands for.

    Returns:
      float: An ExactFloat where a float is not the same number.

    Raises:
      NotANumber: It is larger than any float, or has too many digits.
    """
    if len(literal) <= _SHORT and "e" not in literal and "E" not in literal:
        return float(literal)
    number = float(literal)
    if repr(number) == literal:  # four times as fast as to compare decimals
        return number
    if isinf(number):
        raise NotANumber(f"{literal[:40]}, a number larger than a float can be: the API should send it as text")
    if len(literal) > _LONGEST:
        raise NotANumber("a number of too many digits")
    try:
        return number if Decimal(literal) == Decimal(repr(number)) else ExactFloat(literal)
    except InvalidOperation:
        raise NotANumber(f"{literal[:40]}, a number with too large an exponent") from None
