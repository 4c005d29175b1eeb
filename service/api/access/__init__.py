"""Who sends a request, and what they are allowed to do: clients behind proxies, API keys, reloads, and the gate for
clients that ignore Retry-After. For `app` and `api.routes`."""
