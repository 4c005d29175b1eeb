"""An engine in another interpreter: its parent, its child, and what they say to each other.

Only `engines` may enter.
"""
