"""What stands between the doctor and the app: servers of nginx, and a scripted proxy that spoils streams."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 200; }}
http {{
    access_log off; absolute_redirect off; default_type text/html;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    {servers}
}}
"""
PASS = "proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1;"
#: What stands in `location /` of each server of nginx.
LOCATIONS = {
    "good": PASS,
    "tls": PASS,
    # With HTTP/1.1 nginx passes each chunk on, even if it may buffer.
    "nginx-buffers": "proxy_pass http://127.0.0.1:{upstream}; proxy_ignore_headers X-Accel-Buffering;",
    "nginx-compresses": PASS + "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;",
    "nginx-timeout": PASS + "proxy_read_timeout 1s;",
    "nginx-http-1.0": "proxy_pass http://127.0.0.1:{upstream};",
    "nginx-drops-cursor": PASS + 'proxy_set_header Last-Event-ID "";',
    "stripped-path": "proxy_pass http://127.0.0.1:{upstream}/app/;",
    "bad-gateway": "proxy_pass http://127.0.0.1:{dead};",
    "gateway-timeout": "proxy_pass http://127.0.0.1:{silent}; proxy_read_timeout 1s;",
    "redirect-to-https": "return 301 https://$host$request_uri;",
    "redirect-slash": "return 308 /stream/?$args;",
    "redirect-host": "return 301 http://www.example.com$request_uri;",
    "redirect-login": "return 302 /login?next=/stream;",
    "html-page": "return 200 '<html><h1>It works!</h1>';",
    "login-page": "return 200 '<html><form><input type=\"password\"></form>';",
    "proxy-refuses": "return 401;",
    "rate-limit": "add_header Retry-After 7 always; return 429;",
    "error-500": "return 500;",
    "unavailable": "return 503;",
}
OPEN = (
    b'id: e-1\nevent: sse.open\ndata: {"connection":"a","channels":[],"resumed":true,"heartbeat":0.2}\t\n\n'
)
#: The headers with which proxies that buffer name themselves.
NAMES = {
    "apache-buffers": ("Server", "Apache/2.4.62"),
    "caddy-buffers": ("Via", "1.1 Caddy"),
    "cloudflare-buffers": ("Server", "cloudflare"),
    "varnish-buffers": ("Via", "1.1 varnish (Varnish/7.1)"),
    "unknown-buffers": ("X-Nothing", "x"),
}


#: What the scripted proxy sends of the stream.
BEGINNINGS = {
    "holds-back-later": OPEN,
    "ends-compressed": b"\x1f\x8b",
    "ends-not-resumed": OPEN.replace(b'"resumed":true', b'"resumed":false'),
}
#: The headers of proxies that compress, or say nothing about themselves.
GZIP, NOTHING = ("Content-Encoding", "gzip"), ("X-Nothing", "x")


class Proxy(BaseHTTPRequestHandler):
    """Spoils streams in the way that the first part of the path names. Answers all other paths at once."""

    def do_GET(self) -> None:
        name, _, rest = self.path.lstrip("/").partition("/")
        self.send_response_only(404 if rest == "doctor" else 200)
        if not rest.startswith("stream?"):
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_header("Content-Type", "text/event-stream")
        self.send_header(*(GZIP if name == "ends-compressed" else NAMES.get(name, NOTHING)))
        self.end_headers()
        self.wfile.write(BEGINNINGS.get(name, b""))
        if not name.startswith("ends-"):
            self.server.stopping.wait(60)  # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        """Logs nothing."""
