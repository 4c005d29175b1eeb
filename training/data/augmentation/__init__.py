"""What a recipe does to training images: crops, operations, mixtures. Only `data` may import it."""
