"""Who sends a request, and what they are allowed to do: clients behind proxies, API keys, reloads. For `app` and
`api.routes`."""
