"""The layouts in which data sets come: published files, and tables. `data` and `own` may import it."""
