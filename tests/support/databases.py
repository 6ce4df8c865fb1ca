"""Starts throw-away PostgreSQL and MariaDB servers, as an unprivileged user, in a folder of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from .deadline import eventually
from .processes import free_port, need

#: PostgreSQL refuses to run as root. Tests that run as root start the servers as this user.
UNPRIVILEGED = "nobody"


@contextlib.contextmanager
def postgresql(*options: str) -> Iterator[str]:
    """Runs a PostgreSQL server until the block ends. Yields its URL for SQLAlchemy, with psycopg.

    :param options: further settings, such as `fsync=off`.
    """
    programs = _postgresql_programs()
    with _folder() as folder:
        data, port = folder / "data", free_port()
        _run(
            programs / "initdb",
            "-D",
            data,
            "-U",
            "test",
            "-A",
            "trust",
            "--no-sync",
            "--locale=C",
            "-E",
            "UTF8",
        )
        settings = [
            f"port={port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={folder}",
            *options,
        ]
        command = [str(programs / "postgres"), "-D", str(data)]
        for setting in settings:
            command += ["-c", setting]
        url = f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
        with _server(command, folder, url, signal.SIGINT):  # SIGTERM would wait for all clients to leave
            yield url


@contextlib.contextmanager
def mariadb(*options: str) -> Iterator[str]:
    """Runs a MariaDB server until the block ends. Yields its URL for SQLAlchemy, with PyMySQL."""
    program = need("mariadbd")
    with _folder() as folder:
        (folder / "data").mkdir()
        shutil.chown(folder / "data", *_owner())
        port = free_port()
        command = [program, "--no-defaults", f"--datadir={folder / 'data'}", f"--socket={folder / 'socket'}"]
        command += [f"--port={port}", "--bind-address=127.0.0.1", "--skip-grant-tables", *options]
        server = f"mysql+pymysql://test@127.0.0.1:{port}"
        with _server(command, folder, f"{server}/"):
            engine = create_engine(f"{server}/")
            with engine.begin() as connection:
                connection.execute(text("CREATE DATABASE test CHARACTER SET utf8mb4"))
            engine.dispose()
            yield f"{server}/test?charset=utf8mb4"


def _postgresql_programs() -> Path:
    """The folder with PostgreSQL's programs, which Debian does not put on the PATH."""
    if shutil.which("postgres"):
        return Path(need("postgres")).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else Path(need("postgres")).parent


def _owner() -> tuple[int, int]:
    """The user and group that the servers run as."""
    if os.getuid():
        return os.getuid(), os.getgid()
    entry = pwd.getpwnam(UNPRIVILEGED)
    return entry.pw_uid, entry.pw_gid


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A new folder of the servers' user. The folder of a test belongs to the user of the test."""
    folder = Path(tempfile.mkdtemp(prefix="flask-sse-push-database-"))
    shutil.chown(folder, *_owner())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _run(program: Path, *arguments: str | Path) -> None:
    user, group = _owner()
    command = [str(program), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, user=user, group=group, extra_groups=[], cwd="/")


@contextlib.contextmanager
def _server(
    command: Sequence[str], folder: Path, url: str, stop: signal.Signals = signal.SIGTERM
) -> Iterator[None]:
    user, group = _owner()
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, user=user, group=group, extra_groups=[], cwd="/"
        )
    try:
        eventually(lambda: _answers(url, process, log), 20)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    engine = create_engine(url)
    try:
        with engine.connect():
            return True
    except OperationalError:
        return False
    finally:
        engine.dispose()
