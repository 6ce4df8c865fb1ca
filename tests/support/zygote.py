"""A process that has imported the commands, and forks for each call of `flask …`.

So each call is a process of its own, with its own output, exit code and end, and needs no time for imports.
`flask_process.py` starts the zygote.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from typing import Any

#: At most so many bytes has a request: the arguments and the environment of a call.
MAX_REQUEST = 150_000


def next_call(requests: socket.socket) -> dict[str, Any] | None:
    """Forks for each request. Returns the request in the forked process; None if no more requests come.

    With each request come three files: standard output, error output, and a socket. The zygote writes the pid
    of the forked process to the socket, and then its exit code, which is negative if a signal ended it.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that no ended child stays a zombie
    while True:
        message, files, _, _ = socket.recv_fds(requests, MAX_REQUEST, 3)
        if not message:
            return None
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return fork_once_more(json.loads(message), *files)
        for file in files:
            os.close(file)


def fork_once_more(request: dict[str, Any], output: int, errors: int, reply: int) -> dict[str, Any]:
    """Returns in a child that writes to the two files. The parent reports the child's pid and exit code."""
    pid = os.fork()
    if pid == 0:
        for file, name in ((output, 1), (errors, 2)):
            os.dup2(file, name)
            os.close(file)
        os.close(reply)
        return request
    os.close(output)
    os.close(errors)
    os.write(reply, f"{pid}".encode())
    os.write(reply, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}".encode())
    os._exit(0)


def main() -> None:
    """Runs `flask …` in the forked processes, as `python -m flask` does."""
    from flask import cli

    import flask_sse_push.cli.doctor
    import flask_sse_push.cli.tail.screen
    import flask_sse_push.cli.tail.url  # noqa: F401

    gc.freeze()  # the forked processes need not free what they share; this saves most of their time
    request = next_call(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["folder"])
        sys.argv = ["flask", *request["arguments"]]
        cli.main()


if __name__ == "__main__":
    main()
