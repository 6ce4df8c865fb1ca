"""`flask sse doctor` on Redis servers with one fault each: one finding, with the remedy. Real servers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_sse_push import MessageAnnouncer
from tests.support.deadline import eventually
from tests.support.doctor import examine
from tests.support.doctor_cases import REDIS
from tests.support.processes import free_port
from tests.support.servers import Server


class Lab:
    """A Redis server, and what the set-ups need. Each set-up gets the server as good as new.

    `url` is what the doctor gets as SSE_PUSH_BROKER_URL; `config` are further settings.
    """

    def __init__(self, folder: Path, engine: str = "redis7") -> None:
        self.folder = folder
        self.server = Server(
            folder / "redis", "--dbfilename", "taken.rdb", "--save", "", engine=engine
        ).start()
        # A file cannot take the place of a folder, so Redis cannot save.
        (folder / "redis" / "taken.rdb" / "x").mkdir(parents=True)
        self.admin = self.server.client()
        self.config: dict[str, Any] = {}
        self.url = ""
        self.held = ExitStack()

    def reset(self) -> None:
        self.held.close()
        self.held = ExitStack()
        self.admin.flushall()
        self.config = {}
        self.url = f"redis://127.0.0.1:{self.server.port}/0"

    @contextlib.contextmanager
    def configured(self, **values: str) -> Iterator[None]:
        """Sets the server's configuration until the block ends."""
        names = {name.replace("_", "-"): value for name, value in values.items()}
        before = {name: self.admin.config_get(name)[name] for name in names}
        for name, value in names.items():
            self.admin.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                self.admin.config_set(name, value)

    def configure(self, **values: str) -> None:
        """Sets the server's configuration until the end of the test."""
        self.held.enter_context(self.configured(**values))

    def announcer(self, url: str = "", **settings: Any) -> MessageAnnouncer:
        config = {f"SSE_PUSH_{name.upper()}": value for name, value in settings.items()}
        announcer = MessageAnnouncer.from_url(url or self.url, **config)
        self.held.callback(announcer.close)
        return announcer

    def user(self, *rules: str) -> None:
        """Lets the doctor sign in as the user `app`, who has all rights changed by `rules`."""
        rights = ["reset", "on", "nopass", "+@all", "~*", "&*", *rules]
        self.admin.execute_command("ACL", "SETUSER", "app", *rights)
        self.held.callback(self.admin.execute_command, "ACL", "DELUSER", "app")
        self.url = f"redis://app@127.0.0.1:{self.server.port}/0"

    def another(self, name: str, *options: str, engine: str = "redis7", config: Path | None = None) -> Server:
        """Starts another server until the end of the test."""
        server = Server(self.folder / name, *options, engine=engine, config=config)
        self.held.callback(server.close)
        return server.start()

    def sentinel(self, *lines: str) -> int:
        """Starts a sentinel that watches a dead primary as `shop`. Returns its port."""
        config = self.folder / "sentinel.conf"
        watch = [
            f"sentinel monitor shop 127.0.0.1 {free_port()} 2",
            "sentinel down-after-milliseconds shop 100",
        ]
        config.write_text("\n".join([*watch, *lines]) + "\n")
        return self.another("sentinel", config=config).port


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.server.close()


@pytest.fixture
def lab(shared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.chdir(tmp_path)
    shared.reset()
    yield shared
    shared.held.close()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody trusts, and its key."""
    made = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(made[0]), "-keyout", str(made[1])]
    subprocess.run(command, check=True, capture_output=True)
    return made


# -- the set-ups --------------------------------------------------------------------------------------------


def port_of(lab: Lab, port: int) -> None:
    lab.url = f"redis://127.0.0.1:{port}/0"


def tls(lab: Lab, *, clients: str) -> Path:
    """Starts a server that speaks TLS only. Returns the file of its certificate."""
    cert, key = certificate(lab.folder)
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    options += ["--tls-ca-cert-file", str(cert), "--tls-auth-clients", clients]
    lab.another("tls", *options)
    lab.url = f"rediss://localhost:{port}/0"
    return cert


def nobody_listens(lab: Lab) -> None:
    lab.url = f"redis://:topsecret@127.0.0.1:{free_port()}/0"


def other_ip_version(lab: Lab) -> None:
    lab.url = f"redis://[::1]:{lab.server.port}/0"


def no_such_host(lab: Lab) -> None:
    lab.url = "redis://no-such-host.invalid/0"


def no_redis(lab: Lab) -> None:
    listening = lab.held.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                client.close()

    threading.Thread(target=serve, daemon=True).start()
    lab.held.callback(listening.shutdown, socket.SHUT_RDWR)
    port_of(lab, listening.getsockname()[1])


def tls_to_plain(lab: Lab) -> None:
    lab.url = lab.url.replace("redis:", "rediss:")


def plain_to_tls(lab: Lab) -> None:
    tls(lab, clients="no")
    lab.url = lab.url.replace("rediss:", "redis:")


def untrusted_certificate(lab: Lab) -> None:
    tls(lab, clients="no")


def client_certificate(lab: Lab) -> None:
    cert = tls(lab, clients="yes")
    lab.url += f"?ssl_ca_certs={cert}"


def no_password(lab: Lab) -> None:
    lab.configure(requirepass="x")


def wrong_password(lab: Lab) -> None:
    lab.configure(requirepass="x")
    lab.url = lab.url.replace("//", "//:topsecret@")


def needless_password(lab: Lab) -> None:
    lab.url = lab.url.replace("//", "//:topsecret@")


def no_such_database(lab: Lab) -> None:
    lab.url = lab.url[:-1] + "99"


def other_database(lab: Lab) -> None:
    lab.announcer(lab.url[:-1] + "3").publish(1, channel="news")


def other_prefix(lab: Lab) -> None:
    lab.announcer(prefix="shop").publish(1, channel="news")


def other_ttl(lab: Lab) -> None:
    lab.announcer(history_ttl=60).publish(1, channel="news")


def other_policies(lab: Lab) -> None:
    lab.announcer(channels={"user:*": {"history": 5}}).publish(1, channel="news")


def other_size(lab: Lab) -> None:
    announcer = lab.announcer()
    for number in range(3):
        announcer.publish(number, channel="news")
    lab.config["SSE_PUSH_HISTORY_SIZE"] = 2


def too_few_replicas(lab: Lab) -> None:
    lab.configure(min_replicas_to_write="1")


def out_of_memory(lab: Lab) -> None:
    lab.configure(maxmemory="1")


def disk_full(lab: Lab) -> None:
    lab.configure(save="3600 1")
    lab.admin.set("x", "y")
    lab.admin.bgsave()
    eventually(lambda: lab.admin.info("persistence")["rdb_last_bgsave_status"] == "err", 10)


def replica(lab: Lab) -> None:
    lab.admin.replicaof("127.0.0.1", free_port())
    lab.held.callback(lab.admin.replicaof, "NO", "ONE")


def writable_replica(lab: Lab) -> None:
    replica(lab)
    lab.configure(replica_read_only="no")


def maxclients_reached(lab: Lab) -> None:
    lab.configure(maxclients="1")


def maxclients_near(lab: Lab) -> None:
    for _ in range(92):
        client = lab.server.client()
        client.ping()
        lab.held.callback(client.close)
    lab.configure(maxclients=str(lab.admin.info("clients")["connected_clients"] + 6))


def eviction(lab: Lab) -> None:
    lab.configure(maxmemory="100mb", maxmemory_policy="allkeys-lru")


def memory_near(lab: Lab) -> None:
    lab.admin.setrange("much", 30_000_000, "x")
    lab.configure(maxmemory=str(int(lab.admin.info("memory")["used_memory"] * 1.05)))


def small_buffer(lab: Lab) -> None:
    lab.configure(client_output_buffer_limit="pubsub 65536 16384 1")


def busy_script(lab: Lab) -> None:
    lab.configure(busy_reply_threshold="50")
    other = lab.server.client()

    def run() -> None:
        with contextlib.suppress(redis.RedisError):
            other.eval("while true do end", 0)

    running = threading.Thread(target=run)
    running.start()
    lab.held.callback(running.join)
    lab.held.callback(lab.server.client().script_kill)

    def is_busy() -> bool:
        try:
            return not lab.admin.ping()
        except redis.ResponseError as error:
            return "busy" in str(error).lower()

    eventually(is_busy, 10)


def renamed_command(lab: Lab) -> None:
    port_of(lab, lab.another("renamed", "--rename-command", "EVALSHA", "").port)


def clock_back(lab: Lab) -> None:
    lab.announcer().publish(1, channel="news")
    last = int(lab.admin.hget("{sse:0}:state", "last"))
    lab.admin.hset("{sse:0}:state", "last", last + 3_600_000_000)


def acl(*rules: str) -> Callable[[Lab], None]:
    return lambda lab: lab.user(*rules)


def not_a_sentinel(lab: Lab) -> None:
    lab.url = f"redis+sentinel://127.0.0.1:{lab.server.port}/shop"


def no_sentinel(lab: Lab) -> None:
    lab.url = f"redis+sentinel://127.0.0.1:{free_port()}/shop"


def wrong_service(lab: Lab) -> None:
    lab.url = f"redis+sentinel://127.0.0.1:{lab.sentinel()}/mymaster"


def no_primary(lab: Lab) -> None:
    lab.url = f"redis+sentinel://127.0.0.1:{lab.sentinel()}/shop"


def sentinel_password(lab: Lab) -> None:
    lab.url = f"redis+sentinel://127.0.0.1:{lab.sentinel('requirepass x')}/shop"


def plain_url_to_sentinel(lab: Lab) -> None:
    port_of(lab, lab.sentinel())


def no_cluster(lab: Lab) -> None:
    lab.url = f"redis+cluster://127.0.0.1:{lab.server.port}"


def cluster_down(lab: Lab) -> None:
    # By default, the port of the cluster's bus is 10,000 higher than the server's, and may be taken.
    options = "--cluster-enabled", "yes", "--cluster-port", str(free_port())
    lab.url = f"redis+cluster://127.0.0.1:{lab.another('cluster', *options).port}"


def no_socket_file(lab: Lab) -> None:
    lab.url = f"unix://{lab.folder}/nothing.sock"


def dead_socket(lab: Lab) -> None:
    path = lab.folder / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    lab.held.callback(path.unlink)
    lab.url = f"unix://{path}"


#: Makes the set-ups that have no function of their own.
RIGHTS = {
    "acl-command": acl("-rpush"),
    "acl-dangerous": acl("-@dangerous"),
    "acl-scripts": acl("-@scripting"),
    "acl-keys": acl("resetkeys", "~other:*"),
    "acl-read-only": acl("resetkeys", "%R~{sse:*}:*"),
    "acl-channels": acl("resetchannels"),
    "acl-subscribe": acl("-subscribe"),
    "acl-no-transactions": acl("-@all", "resetkeys", "resetchannels"),
}


def set_up(lab: Lab, name: str) -> None:
    make = RIGHTS.get(name) or globals()[name.replace("-", "_")]
    make(lab)


@pytest.mark.parametrize("name", REDIS)
def test_a_fault_of_redis_has_one_finding_with_the_remedy(lab: Lab, name: str) -> None:
    set_up(lab, name)
    checkup = examine(config={"SSE_PUSH_BROKER_URL": lab.url, **lab.config})
    case = REDIS[name]
    assert [f"{fault.level} {fault.name}" for fault in checkup.faults()] == [case.found], checkup.faults()
    [fault] = checkup.faults()
    assert case.remedy in fault.advice
    assert fault.why
    assert checkup.code == case.found.startswith("broken")
    assert "topsecret" not in str(checkup.findings)


@pytest.mark.parametrize("name", RIGHTS)
def test_the_line_that_the_doctor_prints_mends_the_rights(lab: Lab, name: str) -> None:
    set_up(lab, name)
    config = {"SSE_PUSH_BROKER_URL": lab.url}
    [fault] = examine(config=config).faults()
    lab.admin.execute_command(*fault.advice.partition(" run: ")[2].split())
    assert examine(config=config).faults() == []
    announcer = lab.announcer()
    assert announcer.publish(1, channel="news")


def test_strict_lets_the_exit_code_tell_warnings(lab: Lab) -> None:
    config = {"SSE_PUSH_BROKER_URL": lab.url}
    assert [examine(*options, config=config).code for options in ((), ("--strict",))] == [0, 3]
    lab.configure(min_replicas_to_write="1")
    assert examine("--strict", config=config).code == 1


def test_the_doctor_leaves_nothing_in_redis(lab: Lab) -> None:
    checkup = examine(config={"SSE_PUSH_BROKER_URL": lab.url})
    assert (checkup.code, checkup.faults()) == (0, [])
    eventually(lambda: lab.admin.keys("*") == [], 10)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("valkey"), "valkey")
    yield lab
    lab.held.close()
    lab.server.close()


@pytest.mark.parametrize("name", ["acl-command", "acl-keys", "acl-read-only", "acl-channels"])
def test_the_rights_are_found_on_valkey_too(
    name: str, valkey: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    valkey.reset()
    set_up(valkey, name)
    [fault] = examine(config={"SSE_PUSH_BROKER_URL": valkey.url}).faults()
    assert REDIS[name].remedy in fault.advice
    valkey.admin.execute_command(*fault.advice.partition(" run: ")[2].split())
    assert examine(config={"SSE_PUSH_BROKER_URL": valkey.url}).faults() == []
