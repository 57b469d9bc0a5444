"""Make every item from its id and the seed, and keep what callers have changed."""

import hashlib
from typing import Any

_MATERIALS = ("Ash", "Brass", "Clay", "Copper", "Cotton", "Felt", "Glass", "Linen",
              "Maple", "Oak", "Paper", "Slate", "Steel", "Stone", "Willow", "Wool")  # fmt: skip
_THINGS = ("basket", "bell", "blanket", "bowl", "box", "brush", "chair", "clock",
           "cup", "jar", "kettle", "lamp", "ladder", "rug", "shelf", "stool")  # fmt: skip
_USES = ("for the kitchen", "for the hall", "for a small garden", "for long winters",
         "for the workshop", "for a quiet corner", "for travel", "for every day")  # fmt: skip
_MAKERS = ("made in one piece", "turned by hand", "woven to order", "finished with oil",
           "made to be repaired", "cast in sand", "packed flat", "sold in pairs")  # fmt: skip


class Catalogue:
    """Items 1 to `size`. Nothing is stored until it is changed, so any size starts at once.

    Parameters:
      size: How many items there are.
      seed: Decides their names, descriptions and prices.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._key = hashlib.blake2b(str(seed).encode(), digest_size=32).digest()
        self._changed: dict[int, dict[str, Any]] = {}

    def __contains__(self, item_id: int) -> bool:
        return 1 <= item_id <= self.size

    def item(self, item_id: int) -> dict[str, Any]:
        """Return all of an item: id, name, description, and price in whole currency with two decimals."""
        return self._made(item_id) | self._changed.get(item_id, {})

    def page(self, number: int, per_page: int) -> list[dict[str, Any]]:
        """Return the id and name of each item on a page; pages count from 1, and one beyond the last is empty."""
        first = (number - 1) * per_page + 1
        last = min(first + per_page - 1, self.size)
        items = (self.item(item_id) for item_id in range(first, last + 1))
        return [{"id": item["id"], "name": item["name"]} for item in items]

    def change(self, item_id: int, fields: dict[str, Any]) -> dict[str, Any]:
        """Keep an item's new values, in memory only, and return all of the item."""
        self._changed[item_id] = self._changed.get(item_id, {}) | fields
        return self.item(item_id)

    def _made(self, item_id: int) -> dict[str, Any]:
        draw = hashlib.blake2b(str(item_id).encode(), key=self._key, digest_size=8).digest()
        material, thing = _pick(_MATERIALS, draw[0]), _pick(_THINGS, draw[1])
        return {
            "id": item_id,
            "name": f"{material} {thing} {item_id}",
            "description": f"A {material.lower()} {thing} {_pick(_USES, draw[2])}, {_pick(_MAKERS, draw[3])}.",
            "price": (100 + int.from_bytes(draw[4:8]) % 49_900) / 100,
        }


def _pick(words: tuple[str, ...], byte: int) -> str:
    return words[byte % len(words)]
