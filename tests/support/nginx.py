"""Runs a real nginx."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .deadline import eventually
from .processes import accepts, free_port, need

CONFIG = """
master_process off; error_log {folder}/error.log;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version {version};
            proxy_read_timeout 60s;
            {directives}
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, config: str, port: int) -> Iterator[None]:
    """Runs a real nginx with this configuration until the block ends."""
    file = folder / "nginx.conf"
    file.write_text(config)
    command = [need("nginx"), "-c", str(file), "-g", f"daemon off; pid {folder}/nginx.pid;"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        eventually(lambda: accepts(port) or process.poll() is not None, 20)
        assert process.poll() is None, process.communicate()[1].decode()
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextlib.contextmanager
def nginx_before(upstream: int, folder: Path, version: str = "1.1", directives: str = "") -> Iterator[str]:
    """Runs nginx in front of the port `upstream`, to which it speaks HTTP `version`; yields its URL.

    :param directives: more directives for the location of the app.
    """
    port = free_port()
    config = CONFIG.format(
        folder=folder, port=port, upstream=upstream, version=version, directives=directives
    )
    with nginx(folder, config, port):
        yield f"http://127.0.0.1:{port}"
