"""The HTTP edge: payloads in, answers and problem documents out; nothing below knows HTTP. `app` and
`runtime` may enter.
"""
