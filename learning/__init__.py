"""The local training loop, evaluation, and the hooks of both halves of a method; knows neither Flower nor Ray."""
