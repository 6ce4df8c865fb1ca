"""Checks whether the app is ready for visitors, for the health checks of containers. The exit code is 0 or 1.

Do not restart the app because of this check. It fails while Redis is down, but a worker that waits for Redis
loses nothing.
"""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=4)
try:
    token = os.environ["OPERATOR_TOKEN"]
    connection.request("GET", "/stream/health", headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())
except OSError as error:
    sys.exit(f"not ready: {error}")
sys.exit(0 if answer.status == 200 else 1)
