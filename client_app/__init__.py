"""One client, one message at a time. The ClientApp is `client_app.app`: importing the package does nothing."""
