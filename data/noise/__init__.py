"""Label noise: Clothing1M's as published, and synthetic noise on the labels that a client holds."""
