"""Pulseline: a real-time customer-engagement processor on Faust, Kafka and Redis."""
