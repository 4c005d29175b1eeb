"""What a supervisor and its workers say to one another. Only `runtime` may import it."""
