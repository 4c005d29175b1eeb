"""What is measured of a bundle on labelled images. Only `cli` may enter."""
