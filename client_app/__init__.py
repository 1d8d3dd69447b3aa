"""One client, one message at a time; the ClientApp is in `client_app.app`, so that importing the package changes nothing."""
