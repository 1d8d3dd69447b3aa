"""`python -m runs labels`: whose labels the model doubts; made, and left, on the machine that has the images."""
