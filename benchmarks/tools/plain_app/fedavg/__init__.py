"""A federated app as Flower's PyTorch quickstart teaches it."""
