"""Who asks, and whether they may: clients behind proxies, API keys, reloads. For `app` and `api.routes`."""
