"""Protocols defined by others: Open Inference Protocol v2 and Vertex AI. Only `api` and `app` may import it."""
