"""What the server does for methods that have a half on each side."""
