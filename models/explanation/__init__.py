"""What the last step of a network says about an answer, up to the heat map on a photo. Every package may import it."""
