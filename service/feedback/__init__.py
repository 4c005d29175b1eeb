"""What happens to an answer after it is sent: remembered for feedback, kept for labelling. `api` and above may import
it."""
