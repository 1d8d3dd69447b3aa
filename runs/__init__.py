"""What one does with the folders of runs: list them, compare them, make tables and pages of them."""
