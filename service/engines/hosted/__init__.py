"""An engine in another interpreter: `parent` is our side, `child` the other, `protocol` what they say to each other.

Only `engines` may enter.
"""
