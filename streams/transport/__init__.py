"""Kafka through Faust: runs of records in, claims and commits beside them, batches of records out."""
