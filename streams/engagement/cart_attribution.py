"""Whether a recovered cart is owed to a trigger: a merge of clicks and recoveries, in whatever order they are read."""

from typing import Any

from streams.engagement.decisions import Decided

CLICKS_MAX = 64
RECOVERIES_MAX = 8
_ID_BYTES = 16


class Attribution:
    """Clicks of triggers' emails and the newest recoveries of one customer.

    A recovery is attributed if one of its triggers was clicked before the order, in a click read while the email
    watermark had not passed the order. So of several clicks of one trigger those are kept that no other one beats both
    in time and in watermark.
    """

    __slots__ = ("clicks", "recoveries")

    def __init__(self) -> None:
        self.clicks: list[tuple[int, bytes, int]] = []
        """(clicked_ms, trigger id, email watermark when read), sorted, the CLICKS_MAX newest."""
        self.recoveries: list[tuple[int, int, list[bytes], bool]] = []
        """(order_ms, first_due_ms, trigger ids while not attributed, attributed), sorted, the RECOVERIES_MAX newest."""

    def clicked(self, trigger_id: str, clicked_ms: int, email_watermark_ms: int, decided: Decided) -> None:
        """Take in a click of a trigger's email; what is no trigger id is ignored. Facts: recoveries it attributes."""
        clicked = _id_bytes(trigger_id)
        if clicked is None or not self._remember(clicked_ms, clicked, email_watermark_ms):
            return
        for index, (order_ms, first_due_ms, ids, attributed) in enumerate(self.recoveries):
            if not attributed and clicked in ids and clicked_ms < order_ms and email_watermark_ms <= order_ms:
                self.recoveries[index] = (order_ms, first_due_ms, [], True)
                decided.facts.append(("cart_recovered", first_due_ms, False, -1))
                decided.facts.append(("cart_recovered", first_due_ms, True, 1))
        self.recoveries.sort()

    def recovered(self, order_ms: int, first_due_ms: int, trigger_ids: list[str], decided: Decided) -> None:
        """Take in a recovered cart. Fact: one more recovery, attributed by the clicks read so far or not."""
        ids = [bytes.fromhex(trigger_id) for trigger_id in trigger_ids]
        attributed = any(
            clicked in ids and clicked_ms < order_ms and watermark_ms <= order_ms
            for clicked_ms, clicked, watermark_ms in self.clicks
        )
        self.recoveries.append((order_ms, first_due_ms, [] if attributed else ids, attributed))
        self.recoveries.sort()
        del self.recoveries[:-RECOVERIES_MAX]
        decided.facts.append(("cart_recovered", first_due_ms, attributed, 1))

    def _remember(self, clicked_ms: int, clicked: bytes, watermark_ms: int) -> bool:
        """Add the click; False where another click of the trigger was as early and read as early."""
        same = [click for click in self.clicks if click[1] == clicked]
        if any(other_ms <= clicked_ms and other_watermark <= watermark_ms for other_ms, _, other_watermark in same):
            return False
        for click in same:
            if clicked_ms <= click[0] and watermark_ms <= click[2]:
                self.clicks.remove(click)
        self.clicks.append((clicked_ms, clicked, watermark_ms))
        self.clicks.sort()
        del self.clicks[:-CLICKS_MAX]
        return True

    def pack(self) -> tuple[list[Any], list[Any]]:
        """Return plain canonical values of clicks and recoveries."""
        recoveries = [[order_ms, due_ms, ids[:], int(done)] for order_ms, due_ms, ids, done in self.recoveries]
        return [list(click) for click in self.clicks], recoveries

    @classmethod
    def unpack(cls, clicks: list[Any], recoveries: list[Any]) -> "Attribution":
        """Return the attribution that was packed."""
        attribution = cls()
        attribution.clicks = [(clicked_ms, clicked, watermark_ms) for clicked_ms, clicked, watermark_ms in clicks]
        attribution.recoveries = [(order_ms, due_ms, ids[:], bool(done)) for order_ms, due_ms, ids, done in recoveries]
        return attribution


def _id_bytes(trigger_id: str) -> bytes | None:
    """Return the bytes of a trigger id, None of any other text: a producer may put anything there."""
    if len(trigger_id) != 2 * _ID_BYTES or not set(trigger_id) <= set("0123456789abcdef"):
        return None
    return bytes.fromhex(trigger_id)
