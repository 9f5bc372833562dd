"""Owns what the demo counts: the counters of a small web shop, and what they must say in the end.

Both an `Emitter` and a bare `Registry` can make the counters, so every way of emitting counts the same.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["BUDGET_SECONDS", "CATALOGUE_PRODUCTS", "Shop", "truth"]

CATALOGUE_PRODUCTS = 1_750
"""Two counters with one series per product make a report of about 200 KB (57 bytes a series)."""

BUDGET_SECONDS = 1.0
"""What an emitter may take at most. The default, 0.25, is meant for reports that leave in one flight; 200 KB take
several round trips, and where Linux uses BBR, 0.2 s more every ten seconds (its PROBE_RTT)."""

_BASKET_PRODUCTS = 20
"""How many products are looked at in one order, if there is a catalogue."""

_CHANNELS = ("web", "app", "store")


class _Counter(Protocol):
    def add(self, amount: float = 1, attributes: Any = None, /, **more: Any) -> None: ...


class _Maker(Protocol):
    def counter(self, name: str, *, unit: str = "", description: str = "") -> _Counter: ...


class Shop:
    """The shop's counters.

    Args:
        maker: What makes the counters.
        products: How many products have series of their own; 0 leaves the catalogue out.
    """

    def __init__(self, maker: _Maker, products: int) -> None:
        self._products = products
        self._orders = maker.counter("orders", unit="{order}", description="Orders accepted.")
        self._items = maker.counter("items", unit="{item}", description="Items in accepted orders.")
        if products:
            self._views = maker.counter("product.views", unit="{view}", description="Times it was seen.")
            self._sales = maker.counter("product.sales", unit="{item}", description="Times it was sold.")
            for number in range(products):
                # From the start, every product is in the report with a 0: that it was never sold is news too.
                self._views.add(0, product=_sku(number))
                self._sales.add(0, product=_sku(number))

    def record(self, order: int) -> None:
        """Count one order."""
        channel = _CHANNELS[order % len(_CHANNELS)]
        self._orders.add(1, channel=channel)
        self._items.add(3, channel=channel)
        if self._products:
            for place in range(_BASKET_PRODUCTS):
                self._views.add(1, product=_sku((order * _BASKET_PRODUCTS + place) % self._products))
            for place in range(3):
                self._sales.add(1, product=_sku((order * _BASKET_PRODUCTS + place) % self._products))


def truth(orders: int, products: int) -> dict[str, int]:
    """What each counter, summed over its series, must say after that many orders."""
    small = {"orders": orders, "items": 3 * orders}
    catalogue = {"product.views": _BASKET_PRODUCTS * orders, "product.sales": 3 * orders}
    return small | (catalogue if products else {})


def _sku(number: int) -> str:
    return f"SKU-{number:06d}"
