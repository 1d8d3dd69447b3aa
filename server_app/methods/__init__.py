"""What a federated method does on the server: one file per method."""
