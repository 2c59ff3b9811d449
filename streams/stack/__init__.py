"""The local stack: a real Kafka and a real Redis on this machine, with or without a container engine."""
