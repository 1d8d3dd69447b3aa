"""The model of a run, used: evaluated, applied to photos."""
