"""A stand-in for a bare Debian, on which a test runs the commands of docs/deployment.md as they stand.

Its root is a folder: `/etc`, `/srv` and `/var` in a command mean folders below it. Commands that would change
the machine of the test are scripts. They write down their arguments, and do their work below the root: they
start the unit's real `ExecStart`, the real nginx and the real Redis, with the files that the commands have
made.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from .deadline import eventually
from .processes import accepts, free_port, has_ended, need

NAME = "app.example.com"
#: Folders that the packages of Debian make, and the folder of the scripts.
FOLDERS = ("bin", "srv", "etc/redis", "etc/nginx", "etc/systemd/system", "etc/sysctl.d", "var/log/nginx")
#: Folders that a command means below the root.
MOVED = re.compile(r"(?<![\w.$/])/(etc|srv|var)/")

#: What `python3 -m venv` makes: the programs of this test run stand in for packages from PyPI.
VENV = """\
[ "$1 $2" = "-m venv" ] || exec {python} "$@"
mkdir -p "$3/bin"
for program in gunicorn flask; do
  printf '#!/bin/sh\\nexec {python} -m %s "$@"\\n' $program >"$3/bin/$program"
done
printf '#!/bin/sh\\necho "pip $*" >>{root}/done\\n' >"$3/bin/pip"
chmod +x "$3/bin/"*
"""
#: certbot gets a certificate from Let's Encrypt. This one makes it.
CERTBOT = """\
live={root}/etc/letsencrypt/live/{name}
mkdir -p $live
exec {openssl} req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN={name} \\
  -addext subjectAltName=DNS:{name} -keyout $live/privkey.pem -out $live/fullchain.pem 2>/dev/null
"""
#: Fills in the template, and takes the ports of the test in place of 80, 443.
ENVSUBST = """\
{envsubst} "$@" | sed -e 's/listen 80;/listen {plain};/' -e 's/listen 443 ssl/listen {tls} ssl/' \\
  -e '/listen \\[::\\]/d' -e 's#\\(/etc/\\|/var/\\)#{root}\\1#' -e '1i pid {root}/nginx.own;' \\
  -e 's#^http {{#http {{ client_body_temp_path {root}/1; proxy_temp_path {root}/2; \\
fastcgi_temp_path {root}/3; uwsgi_temp_path {root}/4; scgi_temp_path {root}/5;#'
"""
NGINX = 'exec {nginx} -c {root}/etc/nginx/nginx.conf -e {root}/var/log/nginx/error.log "$@"\n'
#: For `https://app.example.com`, connects to the nginx of the test and trusts its certificate.
CURL = """\
exec {curl} --noproxy '*' --cacert {root}/etc/nginx/tls/fullchain.pem \\
  --connect-to {name}:443:127.0.0.1:{tls} "$@"
"""
SYSTEMCTL = 'exec {python} -m tests.support.debian {root} "$@"\n'
#: Commands that only write down what they were asked to do.
NOTED = ("apt-get", "useradd", "ufw", "sysctl")


class Debian:
    """The stand-in. `run` runs commands on it."""

    def __init__(self, root: Path, redis_port: int) -> None:
        self.root = root
        self.port, self.tls, self.plain = free_port(), free_port(), free_port()
        self._redis_port = redis_port
        for folder in (
            "bin",
            "srv",
            "etc/redis",
            "etc/nginx",
            "etc/systemd/system",
            "etc/sysctl.d",
            "var/log/nginx",
        ):
            (root / folder).mkdir(parents=True)
        (root / "etc/redis/redis.conf").write_text(
            f"bind 127.0.0.1\nport {redis_port}\nsave ''\ndir {root}\n"
        )
        (root / "done").touch()
        scripts = {"python3": VENV, "certbot": CERTBOT, "envsubst": ENVSUBST, "nginx": NGINX}
        scripts |= {"curl": CURL, "systemctl": SYSTEMCTL} | dict.fromkeys(NOTED, "")
        for program, script in scripts.items():
            self._install(program, script)

    def _install(self, program: str, script: str) -> None:
        real = {name: need(name) for name in ("openssl", "envsubst", "nginx", "curl")}
        places = {
            "root": self.root,
            "name": NAME,
            "python": sys.executable,
            "plain": self.plain,
            "tls": self.tls,
        }
        text = script.format(**real, **places) if script else ""
        file = self.root / "bin" / program
        file.write_text(f'#!/bin/sh -e\necho "{program} $*" >>{self.root}/done\n{text}')
        file.chmod(0o755)

    def run(self, commands: str, folder: Path) -> str:
        """Runs the commands of a block in a shell, in this folder; returns what they print."""
        moved = MOVED.sub(rf"{self.root}/\1/", commands)
        moved = moved.replace("127.0.0.1:6379", f"127.0.0.1:{self._redis_port}")
        names = f"export SERVER_NAME={NAME} UPSTREAM=127.0.0.1:{self.port}\n"
        env = {
            **{key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")},
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "2",
        }
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", names + moved],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, f"{commands}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def done(self) -> list[str]:
        """Returns the commands of `NOTED` and of the other scripts, with their arguments, in order."""
        return (self.root / "done").read_text().splitlines()

    def stop(self) -> None:
        """Ends the services."""
        for file in self.root.glob("*.pid"):
            stop(int(file.read_text()))


class Service:
    """What `systemctl` does to one service of the stand-in."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._pid_file = root / f"{name}.pid"

    def restart(self) -> None:
        """Starts the service, after ending it if it runs."""
        if self._pid_file.exists():
            stop(int(self._pid_file.read_text()))
        self.start()

    def start(self) -> None:
        """Starts the program of the service. Returns when its port answers."""
        if self._name == "redis-server":
            return self._run([need("redis-server"), str(self._root / "etc/redis/redis.conf")], {}, self._root)
        if self._name == "nginx":
            return self._run(["nginx", "-g", "daemon off;"], {}, self._root)
        unit = self.unit()
        env = dict(line.split("=", 1) for line in Path(unit["EnvironmentFile"]).read_text().splitlines())
        self._run(shlex.split(unit["ExecStart"]), env, Path(unit["WorkingDirectory"]))
        eventually(lambda: accepts(int(os.environ["PORT"])), 30)
        return None

    def unit(self) -> dict[str, str]:
        """Returns the directives of the service's unit, with the folders of the stand-in."""
        text = (self._root / f"etc/systemd/system/{self._name}.service").read_text()
        moved = MOVED.sub(rf"{self._root}/\1/", text)
        moved = re.sub(r"(?<==)/srv/app$", f"{self._root}/srv/app", moved, flags=re.MULTILINE)
        return dict(line.split("=", 1) for line in moved.splitlines() if "=" in line and line[0] != "#")

    def reload(self) -> None:
        """Sends SIGHUP to the service, as `ExecReload` of the unit does. Starts nginx if it does not run."""
        if self._pid_file.exists():
            os.kill(int(self._pid_file.read_text()), signal.SIGHUP)
        else:
            self.start()

    def _run(self, command: list[str], env: dict[str, str], folder: Path) -> None:
        with (self._root / f"{self._name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **env}, stdout=log, stderr=log, start_new_session=True
            )
        self._pid_file.write_text(str(process.pid))


def stop(pid: int) -> None:
    """Ends a process, and waits until it is gone."""
    try:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: has_ended(pid), 30)
    except ProcessLookupError:
        pass


def main(root: Path, verb: str, *words: str) -> None:
    """Does what `systemctl <verb> <words>` does."""
    names = [word for word in words if not word.startswith("-")]
    for name in names:
        if name in ("app", "nginx", "redis-server"):
            getattr(Service(root, name), "start" if verb == "enable" else verb)()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
