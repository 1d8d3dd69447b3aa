"""What Flower's simulation on Ray lacks, and how many clients fit on which machines."""
