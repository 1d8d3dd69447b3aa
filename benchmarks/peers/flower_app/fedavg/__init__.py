"""FedAvg as Flower's PyTorch quickstart teaches it: the contender `flower` of `benchmarks.peers`."""
