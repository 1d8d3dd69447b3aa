"""Datasets as people have them, read for `python -m data import`: one module for each kind."""
