"""Logits -> scores -> labels, and how far they can be trusted. Every package may import it."""
