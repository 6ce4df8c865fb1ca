"""Runs a real Prometheus that scrapes one server, and asks it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from .deadline import eventually
from .processes import ROOT, free_port, need

#: The rules of the documentation, which Prometheus loads.
RULES = ROOT / "docs/alerts.yml"


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"
        self._http = httpx.Client(timeout=60, trust_env=False)

    def get(self, path: str, **parameters: str | float) -> Any:
        """Returns the data of an answer of the HTTP API.

        :raises AssertionError: if Prometheus answers with an error, such as that of a wrong query.
        """
        answer = self._http.get(f"{self._url}/{path}", params=parameters)
        body = answer.json()
        assert body["status"] == "success", (parameters, body)
        return body["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        """Returns what a query finds now: one item for each series."""
        found: list[dict[str, Any]] = self.get("query", query=text)["result"]
        return found

    def is_up(self) -> bool:
        """Whether Prometheus has scraped the server."""
        with contextlib.suppress(httpx.HTTPError, json.JSONDecodeError):
            return any(float(series["value"][1]) for series in self.query("up"))
        return False

    def close(self) -> None:
        self._http.close()


@contextlib.contextmanager
def prometheus(folder: Path, target: str, path: str, token: str, interval: str) -> Iterator[Prometheus]:
    """Runs Debian's Prometheus until the block ends. It has scraped the server when the block begins.

    :param target: host and port of the server.
    :param path: the path of its metrics.
    :param interval: the time between two scrapes, such as `200ms`.
    """
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "sse",
                "metrics_path": path,
                "authorization": {"credentials": token},
                "static_configs": [{"targets": [target]}],
            }
        ],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [need("prometheus"), f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder / 'data'}"], stdout=log, stderr=log
        )
    asked = Prometheus(port)
    try:
        eventually(lambda: process.poll() is not None or asked.is_up(), 20)
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield asked
    finally:
        asked.close()
        process.terminate()
        process.wait(30)
