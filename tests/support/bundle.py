"""Bundles scripts with the packages that they import, for pages in tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .processes import ROOT, need

JS = ROOT / "tests" / "js"


def bundle(script: Path, file: Path, mode: str = "development") -> Path:
    """Writes a script and all that it imports into `file`, and returns `file`.

    :param mode: `development` or `production`. React's strict mode mounts twice only in development.
    """
    need("node")
    if not (JS / "node_modules" / "esbuild").is_dir():
        if os.environ.get("CI"):
            pytest.fail("run `npm install` in tests/js")
        pytest.skip("run `npm install` in tests/js")
    command = ["node_modules/.bin/esbuild", str(script), "--bundle", "--format=esm"]
    command += [f"--outfile={file}", f'--define:process.env.NODE_ENV="{mode}"', "--log-level=warning"]
    command += ["--minify"] if mode == "production" else []
    subprocess.run(command, cwd=JS, env={**os.environ, "NODE_PATH": "node_modules"}, check=True, timeout=240)
    return file
