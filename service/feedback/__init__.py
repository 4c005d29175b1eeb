"""What becomes of an answer once it is given: remembered until somebody says what was right. Entered by app and api."""
