"""Encoded images to pixels: decoding, loading many at once, and the cache of decoded ones."""
