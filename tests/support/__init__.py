"""What the suites share: brokers, fakes, strategies, the independent fold."""
