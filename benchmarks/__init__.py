"""Measures what RESULTS.md reports, one module or package per question."""
