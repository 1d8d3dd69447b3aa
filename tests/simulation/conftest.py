"""Imports the ClientApp before any test imports Flower's simulation, which it would otherwise patch for the tests."""

import client_app.app  # noqa: F401
