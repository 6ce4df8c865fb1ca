"""The folders of an embedded server: the project of a process, and where its data and its socket are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ...errors import BrokerUnavailable

#: The folder inside the project that holds the server's data.
DATA = ".flask-sse-push"
#: A folder with one of these is a project.
MARKERS = (
    *("app.py", "wsgi.py", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "Pipfile"),
    *(".flaskenv", ".git", DATA),
)
#: At most how many bytes the path of a Unix socket has: macOS allows 103, Linux 107.
MAX_SOCKET_PATH = 100
_NAME = "flask-sse-push"


def project_folder(root: str | None) -> Path:
    """Returns the folder of the project that this process belongs to.

    The search starts at the app's code and goes up to the first folder that has one of `MARKERS`. Without an
    app, the search starts at the script that Python runs. If this finds no marker, the search starts again at
    the current folder. Installed code, such as the program `celery`, does not count. If no folder has a
    marker, the project is the folder where the search began.

    :param root: the app's `root_path`; None for a process without an app.
    :raises BrokerUnavailable: if the current folder was deleted.
    """
    first = None
    for start in _starts(root):
        first = first or start
        for folder in _upwards(start):
            if any((folder / name).exists() for name in MARKERS):
                return folder
    if first is not None:
        return first
    raise BrokerUnavailable(
        "embedded:// keeps its data in the project's folder, but the current folder was deleted; start the "
        "process in another folder, or name the server: embedded://name"
    )


def _starts(root: str | None) -> Iterator[Path]:
    code = root or getattr(sys.modules.get("__main__"), "__file__", None)
    if code:
        folder = Path(code).resolve()
        folder = folder if root else folder.parent
        if not _is_installed(folder):
            yield _outside_packages(folder)
            if root:
                return
    with contextlib.suppress(FileNotFoundError):
        yield _outside_packages(Path.cwd().resolve())


def _is_installed(folder: Path) -> bool:
    paths = sysconfig.get_paths()
    installed = [Path(paths[key]).resolve() for key in ("purelib", "platlib", "stdlib", "scripts")]
    return any(folder.is_relative_to(place) for place in installed)


def _outside_packages(folder: Path) -> Path:
    """Returns the folder from which Python imports a package, as `flask --app` finds this folder."""
    while (folder / "__init__.py").exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _upwards(start: Path) -> Iterator[Path]:
    """Yields `start` and the folders above. Stops before a folder that is no project: the home folder, the
    root, or a folder that everybody may write."""
    yield start
    for folder in start.parents:
        shared = os.access(folder, os.F_OK) and folder.stat().st_mode & stat.S_IWOTH
        if shared or folder == folder.parent or folder == _home():
            return
        yield folder


def _home() -> Path | None:
    try:
        return Path.home().resolve()
    except (RuntimeError, OSError):
        return None


def data_folder(name: str, project: Path) -> Path:
    """Returns the data folder of a server. Makes the folder if it does not exist.

    Without a name, the folder is inside the project. If this user may not write there, or for a server with a
    name, the folder is below `~/.local/state`, or else below the temporary folder.

    :param name: the name of the server; "" for the server of the project.
    :param project: not used for a server with a name.
    :raises BrokerUnavailable: if the project is gone, or if this user may write nowhere.
    """
    if name:
        places = [*_state_folders(f"named-{name}")]
    else:
        if not project.is_dir():
            raise BrokerUnavailable(f"embedded:// keeps its data in the project {project}, which is gone")
        digest = hashlib.sha256(os.fsencode(project)).hexdigest()[:16]
        # A copy that has taken the place of its original has the same path, but another inode.
        places = [project / DATA, *_state_folders(f"{digest}-{project.stat().st_ino}")]
    for place in places:
        if _is_ours(place):
            return place
    raise BrokerUnavailable(f"embedded:// may not write to any of {', '.join(map(str, places))}")


def _state_folders(name: str) -> Iterator[Path]:
    home = _home()
    state = os.environ.get("XDG_STATE_HOME") or (home and home / ".local" / "state")
    if state:
        with contextlib.suppress(OSError):
            (Path(state) / _NAME).mkdir(mode=0o700, parents=True, exist_ok=True)
        yield Path(state) / _NAME / name
    yield from (folder / name for folder in _temporary_folders() if _is_ours(folder))


def socket_path(data: Path) -> Path:
    """Returns a new path for the server's socket, in a short folder that only this user may enter.

    :raises BrokerUnavailable: if there is no such folder.
    """
    name = f"{secrets.token_hex(6)}.sock"
    for folder in [*_temporary_folders(), data]:
        path = folder / name
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH and _is_ours(folder):
            return path
    raise BrokerUnavailable(
        "embedded:// found no folder with a short path for the server's socket; set TMPDIR to such a folder"
    )


def _temporary_folders() -> list[Path]:
    folders = [os.environ.get("TMPDIR"), "/tmp", "/var/tmp"]
    found = [Path(folder) / f"{_NAME}-{os.getuid()}" for folder in folders if folder]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [*found, Path(runtime) / _NAME] if runtime else found


def _is_ours(folder: Path) -> bool:
    """Makes the folder if it is missing. Returns whether this user owns it, and only this user may write."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
        return private and status.st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK)
    return False
