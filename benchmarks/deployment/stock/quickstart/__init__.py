"""A federated app as Flower's PyTorch quickstart teaches it: the stock contender of `benchmarks.deployment`."""
