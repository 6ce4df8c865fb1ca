"""nchan in nginx, with a private configuration."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..base import HEARTBEAT_INTERVAL, Peer

MODULE = "ngx_nchan_module.so"
FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/etc/nginx/modules")


class Nchan(Peer):
    name = "nchan"
    title = "nginx + nchan (C)"
    publisher = "http-post"

    def command(self) -> Sequence[str | Path]:
        config = self.folder / "nginx.conf"
        values = {
            "MODULE": _module() or "",
            # The hard limit. nginx's listening and internal sockets count too.
            "FILES": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            "FOLDER": self.folder,
            "PORT": self.port,
            "HEARTBEAT": HEARTBEAT_INTERVAL,
        }
        text = (Path(__file__).parent / "nginx.conf").read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        config.write_text(text)
        return ["nginx", "-p", self.folder, "-e", "stderr", "-c", config]

    def versions(self) -> dict[str, str]:
        return {"nginx": _nginx_version(), "nchan": _nchan_version()}

    def missing(self) -> str | None:
        if not shutil.which("nginx") or not _module():
            return "install nginx with nchan (Debian: nginx and libnginx-mod-nchan)"
        return None

    def miss(self, count: int, size: int) -> tuple[str, tuple[str, ...]]:
        self.publish(count, 0, size, batch=50)
        return "/replay?channels=bench", ()


def _module() -> Path | None:
    return next((Path(folder, MODULE) for folder in FOLDERS if Path(folder, MODULE).exists()), None)


def _nginx_version() -> str:
    if not shutil.which("nginx"):
        return ""
    shown = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
    return shown.strip().rpartition("/")[2]


def _nchan_version() -> str:
    """Returns the version of the Debian package, because the module itself has no command that shows it."""
    if not _module():
        return ""
    if not shutil.which("dpkg-query"):
        return "unknown version"
    query = ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"]
    return subprocess.run(query, capture_output=True, text=True).stdout or "unknown version"
