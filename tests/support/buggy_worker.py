"""A worker with bugs: whatever has to do with a customer called bug-<where>... raises there, quoting the customer."""

from typing import Any

from streams.engagement.profile import Profile
from streams.settings import Settings
from streams.worker import run_worker


def main() -> None:
    apply, pack, unpack = Profile.apply, Profile.pack_hot, Profile.unpack

    def bad_apply(self: Profile, event: Any, *rest: Any) -> bool:
        applied = apply(self, event, *rest)
        if self.customer_id.startswith("bug-apply"):
            raise KeyError(event)
        return applied

    def bad_pack(self: Profile, schema: int) -> bytes:
        if self.customer_id.startswith("bug-pack"):
            raise ValueError(f"cannot pack {self.customer_id}")
        return pack(self, schema)

    def bad_unpack(customer_id: str, *fields: Any) -> Profile:
        if customer_id.startswith("bug-load"):
            raise TypeError(customer_id)
        return unpack(customer_id, *fields)

    Profile.apply, Profile.pack_hot = bad_apply, bad_pack  # type: ignore[method-assign, assignment]
    Profile.unpack = staticmethod(bad_unpack)  # type: ignore[method-assign, assignment]
    run_worker(Settings.load())


if __name__ == "__main__":
    main()
