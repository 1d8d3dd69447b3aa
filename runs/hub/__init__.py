"""A folder for the Hugging Face hub: weights, what they are, and a card for people."""
