"""The image's HEALTHCHECK: exit code 0 if /readyz answers 200; otherwise an exception, exit code 1."""

import os
import urllib.request

port = os.environ.get("REPVGG_PORT") or "8000"
urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=4).close()
