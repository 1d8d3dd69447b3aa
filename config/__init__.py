"""The run config as one checked object, its presets, and what is written from it."""
