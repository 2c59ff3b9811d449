"""What fields of input records may hold: limits, constrained types, and the base of every strict record.

Known fields are strict: no "12" or 12.0 for 12, no true for 1, no NaN. null in an optional field is absent, in a
required one it is invalid; unknown fields are ignored. An empty string is a given one: only `event_id` and customer ids
have a least length. Times are epoch ms, money is integer minor units, lengths count characters.
"""

from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

VALUE_BYTES_MAX = 65_536
TEXT_CHARS_MAX = 512
URL_CHARS_MAX = 2_048
EVENT_ID_CHARS_MAX = 100
CUSTOMER_ID_CHARS_MAX = 128
ITEMS_MAX = 100
QUANTITY_MAX = 1_000_000
AMOUNT_MINOR_MAX = 10**12
FOLLOWERS_MAX = 10**12
# Integers up to here survive every JSON reader, also one that holds numbers as doubles.
EXACT_INTEGER_MAX = 2**53 - 1

EventId = Annotated[str, Field(min_length=1, max_length=EVENT_ID_CHARS_MAX)]
CustomerId = Annotated[str, Field(min_length=1, max_length=CUSTOMER_ID_CHARS_MAX)]
Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]
Url = Annotated[str, Field(max_length=URL_CHARS_MAX)]
EpochMs = Annotated[int, Field(ge=0, le=EXACT_INTEGER_MAX)]
AmountMinor = Annotated[int, Field(ge=0, le=AMOUNT_MINOR_MAX)]
Quantity = Annotated[int, Field(ge=1, le=QUANTITY_MAX)]
StepNumber = Annotated[int, Field(ge=-EXACT_INTEGER_MAX, le=EXACT_INTEGER_MAX)]
Followers = Annotated[int, Field(ge=0, le=FOLLOWERS_MAX)]
Sentiment = Annotated[float, Field(ge=-1, le=1)]


class Priced(Protocol):
    """What carries a quantity and a unit price: a line, or an event about one product."""

    @property
    def quantity(self) -> int | None: ...

    @property
    def unit_price_minor(self) -> int | None: ...


def check_line_amount(line: Priced) -> None:
    """Raise ValueError where quantity x unit price is more than AMOUNT_MINOR_MAX; a missing quantity is one."""
    if line.unit_price_minor is not None and line.unit_price_minor * (line.quantity or 1) > AMOUNT_MINOR_MAX:
        raise PydanticCustomError("line_amount", "quantity x unit_price_minor must be at most 1000000000000")


class Record(BaseModel):
    """Anything read from an input topic. `one_of` names optional fields of which at least one must be given."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)
    one_of: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Raise ValueError where valid fields contradict each other; the derived structs run the same function."""

    @model_validator(mode="before")
    @classmethod
    def _one_is_given(cls, fields: Any) -> Any:
        if cls.one_of and isinstance(fields, dict) and all(fields.get(name) is None for name in cls.one_of):
            raise PydanticCustomError("missing", "{names} is required", {"names": " or ".join(cls.one_of)})
        return fields

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self.check()
        return self


class Line(Record):
    """One line of a cart or an order. Its currency is the event's."""

    one_of = ("product_id", "name")

    product_id: Text | None = None
    name: Text | None = None
    category: Text | None = None
    quantity: Quantity | None = None
    unit_price_minor: AmountMinor | None = None
    url: Url | None = None
    image_url: Url | None = None

    def check(self) -> None:
        check_line_amount(self)
