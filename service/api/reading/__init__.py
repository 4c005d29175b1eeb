"""How a request is read: bodies of every content type, form parts, bytes sent as text, parameters, and the time an
upload may take. Only `api` and `app` may import it.
"""
