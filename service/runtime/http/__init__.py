"""HTTP/1.1 on asyncio: heads, bodies, connections and their timers, calls to the application. For `runtime.server`."""
