"""Explains answers from the last step of a network, up to the heat map on a photo. Every package may import it."""
