"""What an accuracy is made of, in numpy. `run` and `deploy` may import it."""
