"""Lines of a cart: a dict of tuples by line key, which is the product_id or else the name."""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from streams.engagement.cart_rules import LINES_MAX, Piece

Line: TypeAlias = tuple[str | None, str | None, int, int | None, str | None, str | None, str | None, int]
"""product_id, name, quantity, unit_price_minor, currency, url, image_url, time of the newest add in epoch ms."""
Lines: TypeAlias = dict[str, Line]

ADDED_MS: Final = 7
LINE_BYTES: Final = 48


def key_of(product_id: str | None, name: str | None) -> str:
    """Return the line key of a product: its product_id, else its name; the contract requires one of them."""
    return product_id if product_id is not None else name or ""


def add(lines: Lines, piece: Piece, added_ms: int) -> bool:
    """Add a quantity (1 where missing) of a product; newest non-null values win. False where the cart is full."""
    product_id, name, quantity, price, currency, url, image_url = piece
    key = key_of(product_id, name)
    quantity = 1 if quantity is None else quantity
    old = lines.get(key)
    if old is None:
        if len(lines) >= LINES_MAX:
            return False
        lines[key] = (product_id, name, quantity, price, currency, url, image_url, added_ms)
        return True
    lines[key] = (
        old[0] if product_id is None else product_id,
        old[1] if name is None else name,
        old[2] + quantity,
        old[3] if price is None else price,
        old[4] if currency is None else currency,
        old[5] if url is None else url,
        old[6] if image_url is None else image_url,
        max(old[ADDED_MS], added_ms),
    )
    return True


def replace(lines: Lines, pieces: Iterable[Piece], added_ms: int) -> None:
    """Put the products, at most LINES_MAX, in the place of all lines."""
    lines.clear()
    for piece in pieces:
        add(lines, piece, added_ms)


def remove(lines: Lines, piece: Piece) -> None:
    """Take a quantity (all where missing) of a product out; an unknown line changes nothing."""
    key, quantity = key_of(piece[0], piece[1]), piece[2]
    old = lines.get(key)
    if old is None:
        return
    left = 0 if quantity is None else old[2] - quantity
    if left <= 0:
        del lines[key]
    else:
        lines[key] = (old[0], old[1], left, *old[3:])


def weigh_piece(piece: Any) -> int:
    """Return the weight of a line, or of a product in an event."""
    weight = LINE_BYTES
    for text in (piece[0], piece[1], piece[4], piece[5], piece[6]):
        if text is not None:
            weight += len(text) if text.isascii() else len(text.encode())
    return weight


def weigh_line(lines: Lines, key: str) -> int:
    """Return the weight of the line with a key, 0 where there is none."""
    line = lines.get(key)
    return 0 if line is None else weigh_piece(line)


def total(lines: Lines) -> tuple[int | None, str | None]:
    """Return (sum in minor units, currency); None where a price is missing, currencies differ, or no line is there."""
    amount, currency = None, None
    for line in lines.values():
        _, _, quantity, price, its_currency, _, _, _ = line
        if price is None or (amount is not None and its_currency != currency):
            return None, None
        amount, currency = (amount or 0) + quantity * price, its_currency
    return amount, currency


def in_order(lines: Lines) -> list[Line]:
    """Return the lines by line key, so that equal carts look equal whatever the order in which they were filled."""
    return [lines[key] for key in sorted(lines)]


def items(lines: Lines) -> list[dict[str, Any]]:
    """Return the lines as the items of a trigger."""
    return [
        {
            "product_id": product_id,
            "name": name,
            "quantity": quantity,
            "unit_price_minor": price,
            "url": url,
            "image_url": image_url,
        }
        for product_id, name, quantity, price, _, url, image_url, _ in in_order(lines)
    ]


def view(lines: Lines) -> list[dict[str, Any]]:
    """Return the lines for people and comparisons."""
    return [item | {"currency": line[4]} for item, line in zip(items(lines), in_order(lines), strict=True)]
