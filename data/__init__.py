"""Clothing1M on disk: its released layout, its images, its partitions. Knows nothing of federated learning."""
