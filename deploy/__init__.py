"""What real machines need: certificates, keys, start scripts, containers. Imports neither Flower nor torch."""
