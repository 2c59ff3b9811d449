"""Benchmarks: what an event costs, against a stock Faust agent and a bare aiokafka loop on the same topics."""
