"""Who asks, and whether they may: clients behind proxies, API keys, reloads, and the gate for clients that ignore
Retry-After. For `app` and `api.routes`.
"""
