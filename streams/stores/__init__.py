"""State stores: Redis, memory, and the Faust table that shows them."""
