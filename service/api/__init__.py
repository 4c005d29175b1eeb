"""The HTTP edge: payloads in, answers and problem documents out; no layer below knows HTTP. `app` and `runtime` may
import it.
"""
