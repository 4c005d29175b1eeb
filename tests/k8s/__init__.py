"""A package, so that pytest ends its package-scoped fixtures, two servers under load among them, after its last test.

In a folder without this file they would run until all other tests have ended.
"""
