"""Which folder is the project of a process, and where its server has its data and its socket."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flask_sse_push import BrokerUnavailable
from flask_sse_push.brokers.embedded.broker import parse
from flask_sse_push.brokers.embedded.project import (
    DATA,
    MAX_SOCKET_PATH,
    data_folder,
    project_folder,
    socket_path,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder that is a git repository, as some people's are."""
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def run_script(monkeypatch: pytest.MonkeyPatch, script: Path | str) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)


@pytest.mark.parametrize(
    ("files", "root", "project"),
    [
        (["shop/app.py"], "shop", "shop"),
        (["shop/hello.py"], "shop", "shop"),  # has none of the markers
        (["shop/pyproject.toml", "shop/src/app/__init__.py"], "shop/src/app", "shop"),
        (["shop/wsgi.py", "shop/web/__init__.py", "shop/web/app.py"], "shop/web", "shop"),
        (["all/.git", "all/one/app.py", "all/two/app.py"], "all/one", "all/one"),
        (["all/requirements.txt", "all/one/hello.py"], "all/one", "all"),
    ],
)
def test_the_project_of_an_app(files: list[str], root: str, project: str, home: Path) -> None:
    write(home, *files)
    assert project_folder(str(home / root)) == home / project


def test_a_script_in_a_subfolder_belongs_to_the_project_of_the_app(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write(home / "shop", "app.py", "scripts/send.py")
    monkeypatch.chdir(home)
    run_script(monkeypatch, shop / "scripts" / "send.py")
    assert project_folder(None) == shop


def test_an_installed_program_belongs_to_the_project_of_the_current_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write(home / "shop", "app.py", "jobs/tasks.py")
    monkeypatch.chdir(shop / "jobs")
    run_script(monkeypatch, pytest.__file__)
    assert project_folder(None) == shop


def test_a_script_outside_every_project_uses_the_current_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write(home / "shop", "app.py")
    run_script(monkeypatch, write(home / "bin", "send.py") / "send.py")
    monkeypatch.chdir(shop)
    assert project_folder(None) == shop
    monkeypatch.chdir(home / "bin")
    assert project_folder(None) == home / "bin"


def test_the_search_stops_below_a_folder_that_everybody_may_write(home: Path) -> None:
    write(home / "shared", "app.py").chmod(0o1777)
    alone = write(home / "shared" / "alone", "hello.py")
    assert project_folder(str(alone)) == alone


def test_a_deleted_current_folder_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = write(home / "gone", "x")
    monkeypatch.chdir(gone)
    (gone / "x").unlink()
    gone.rmdir()
    run_script(monkeypatch, pytest.__file__)
    with pytest.raises(BrokerUnavailable, match="the current folder was deleted"):
        project_folder(None)


def test_without_a_place_in_the_project_the_data_is_in_the_users_state(home: Path) -> None:
    shop = write(home / "shop", "app.py", DATA)  # a file is in the way
    folder = data_folder("", shop)
    assert folder.parent == home / ".local" / "state" / "flask-sse-push"
    assert data_folder("", shop) == folder
    assert data_folder("", write(home / "other", DATA)) != folder


def test_a_link_or_a_folder_that_others_may_write_is_not_used(home: Path) -> None:
    for name in ("linked", "open"):
        write(home / name, "app.py")
    (home / "elsewhere").mkdir()
    (home / "linked" / DATA).symlink_to(home / "elsewhere")
    (home / "open" / DATA).mkdir()
    (home / "open" / DATA).chmod(0o777)
    assert home / ".local" in data_folder("", home / "linked").parents
    assert home / ".local" in data_folder("", home / "open").parents


def test_the_socket_of_a_deep_project_has_a_short_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = home / ("x" * 120)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    path = socket_path(deep)
    assert len(str(path)) <= MAX_SOCKET_PATH
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "url",
    [
        "embedded://bad name",
        "embedded://../up",
        "embedded://.hidden",
        "embedded://shop/0",
        "embedded://me:secret@shop",
        "embedded://shop:6379",
        "embedded://?idle=0",
        "embedded://?idle=inf",
        "embedded://?idle=soon",
        "embedded://?protocol=3",
        "embedded://" + "x" * 65,
    ],
)
def test_a_url_that_is_not_valid_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"embedded:// or embedded://name|could not convert"):
        parse(url)


@pytest.mark.parametrize(
    "url", ["embedded://", "embedded:///", "embedded://shop-2.x", "embedded://a?idle=60"]
)
def test_a_valid_url_starts_nothing(url: str) -> None:
    parse(url)
