"""Where encoded images are: image folders as released, or a pack of them in one file."""
