"""The same federated job in several frameworks; `python -m benchmarks.peers` runs it."""
