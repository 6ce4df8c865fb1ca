"""Whether the app beside it may be sent visitors: exit code 0 or 1, for the health checks of containers.

Not for restarting it: while Redis is away the answer is no, and a worker that waits loses nothing.
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
