"""Loaded before any test here loads Flower's simulation, which the ClientApp would then change for the tests, too."""

import client_app.app  # noqa: F401
