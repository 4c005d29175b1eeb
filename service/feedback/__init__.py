"""What becomes of an answer once it is given: remembered for feedback, kept for labelling. Entered by api and above."""
