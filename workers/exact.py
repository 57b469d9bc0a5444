"""ExactFloat: placeholder until merged."""

from decimal import Decimal


class ExactFloat(float):
    literal: str

    def to_decimal(self) -> Decimal:
        return Decimal(self.literal)
