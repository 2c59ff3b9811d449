"""Pulseline: live engagement scores and cart-abandonment triggers from Kafka, with state in Redis."""
