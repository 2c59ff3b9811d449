"""Sending engagement events: the SDK for shops, and simulated shoppers who use it."""
