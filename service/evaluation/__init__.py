"""Measures a bundle on labelled images: accuracy, confusion, calibration. Only `cli` may import it."""
