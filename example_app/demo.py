"""What the demo needs beside the app, for gunicorn.conf.py: the ticker process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Seconds the ticker gets to end by itself.
PATIENCE = 1.0


class Ticker:
    """The ticker as a child of gunicorn's master: it ends with it, however that ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, once."""
        if self._process is None:
            command = [sys.executable, "-m", "example_app.ticker", "--parent", str(os.getpid())]
            self._process = subprocess.Popen(command, cwd=ROOT)

    def stop(self) -> None:
        """Ends it; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


#: The one of this process; a reload of gunicorn's configuration must find it again.
ticker = Ticker()
