"""What the service tells about itself: metrics, logs, traces and drift signals.

Everything above `settings` may enter.
"""
