"""Observability: metrics, logs, traces and drift signals.

All rooms above `settings` may import it.
"""
