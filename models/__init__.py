"""The wire contract of Pulseline: what other systems send it and read from it."""
