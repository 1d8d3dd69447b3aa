"""Which client holds which images: schemes, and partitions in files."""
