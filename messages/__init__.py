"""What client and server send each other: names of records and keys, arrays, the packed model."""
