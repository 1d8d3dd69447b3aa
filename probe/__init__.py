"""How many clients should train at once on this machine, measured; not part of what is sent to nodes."""
