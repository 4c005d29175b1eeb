"""The protocols that others defined: Open Inference Protocol v2 and Vertex AI. Only `api` and `app` may enter."""
