"""Runs nginx and gunicorn with the files of deploy/, after filling in names, folders and ports."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from .nginx import nginx
from .processes import ROOT, Gunicorn, free_port, gunicorn, need

DEPLOY = ROOT / "deploy"
TOKEN = "operators' token"
#: Folders of a machine in production. The tests use other folders.
LOGS, TLS = "/var/log/nginx", "/etc/nginx/tls"


@dataclass
class Site:
    """gunicorn behind nginx. Clients reach it by HTTPS at `localhost`."""

    server: Gunicorn
    port: int
    plain_port: int
    trust: ssl.SSLContext
    access_log: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self) -> httpx.Client:
        """An HTTP/2 client that trusts the certificate."""
        return httpx.Client(
            base_url=self.url, http2=True, verify=self.trust, timeout=60, trust_env=False, headers=_NO_GZIP
        )


_NO_GZIP = {"Accept-Encoding": "identity"}


def certify(folder: Path) -> ssl.SSLContext:
    """Makes a certificate for `localhost` as in docs/deployment.md. Returns a context that trusts only it."""
    folder.mkdir(parents=True)
    command = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return ssl.create_default_context(cafile=str(folder / "fullchain.pem"))


def filled_in(folder: Path, upstream: int, plain_port: int, port: int) -> str:
    """The text of deploy/nginx.conf.template with its two names, this folder and these ports filled in."""
    text = (DEPLOY / "nginx.conf.template").read_text()
    values = {
        "${UPSTREAM}": f"127.0.0.1:{upstream}",
        "${SERVER_NAME}": "localhost",
        LOGS: str(folder),
        TLS: str(folder / "tls"),
        "listen 80;": f"listen {plain_port};",
        "listen [::]:80;": _on_ipv6(f"listen [::]:{plain_port};"),
        "listen 443 ssl http2;": f"listen {port} ssl http2;",
        "listen [::]:443 ssl http2;": _on_ipv6(f"listen [::]:{port} ssl http2;"),
        # nginx's default folders are for root only.
        "http {\n": f"http {{\n    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;"
        f" fastcgi_temp_path {folder}/1; uwsgi_temp_path {folder}/2; scgi_temp_path {folder}/3;\n",
    }
    for placeholder, value in values.items():
        assert placeholder in text, f"{placeholder!r} is not in the template any more"
        text = text.replace(placeholder, value)
    return text


def _on_ipv6(line: str) -> str:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return line
    return ""


@contextlib.contextmanager
def site(folder: Path, broker: str, **settings: str) -> Iterator[Site]:
    """Runs the app and gunicorn.conf.py of deploy/ behind nginx. `settings` are environment variables."""
    trust = certify(folder / "tls")
    plain_port, port = free_port(), free_port()
    env = {"SECRET_KEY": "test", "OPERATOR_TOKEN": TOKEN, "SSE_PUSH_BROKER_URL": broker, **settings}
    running = gunicorn(
        "app:app",
        "--chdir",
        str(DEPLOY),
        env=env,
        workers=2,
        log=folder / "server.log",
        config=DEPLOY / "gunicorn.conf.py",
    )
    with running as server, nginx(folder, filled_in(folder, server.port, plain_port, port), port):
        yield Site(server, port, plain_port, trust, folder / "access.log")
