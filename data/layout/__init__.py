"""The released layout: finding a release, reading its text files into an index, and writing new ones."""
