"""`python -m runs report`: one page about runs, in one file that opens from disk and asks the network for nothing."""
