"""The HTTP edge: payloads in, answers and problem documents out. Everything below it knows no HTTP."""
