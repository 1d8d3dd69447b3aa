"""Many runs from one file: methods x noises x seeds, resumed after any interruption, and the table of them."""
