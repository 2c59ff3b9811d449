"""Ring 1: what an event means to a customer's profile. Pure: no I/O, no clock, no randomness, no log."""
