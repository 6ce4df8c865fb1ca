"""Runs scripts with gevent. Each has a process of its own, forked from one that has made the imports."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from .processes import ROOT

#: After this many seconds, a script that still runs is ended, and its stack is the error.
SECONDS = 60

#: Taken before gevent patches them: its own `fork` would start a loop here, which the scripts would inherit.
BEGIN = """
import faulthandler, json, os, sys, traceback
from os import fork, waitpid
"""
FORK = """
def run_script(script, write):
    os.dup2(write, 1)
    os.dup2(write, 2)
    faulthandler.dump_traceback_later({seconds}, exit=True)
    try:
        exec(script, globals())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

for line in sys.stdin:
    script, *sys.argv[1:] = json.loads(line)
    read, write = os.pipe()
    pid = fork()
    if not pid:
        run_script(script, write)
    os.close(write)
    with open(read) as output:
        text = output.read()
    print(json.dumps([os.waitstatus_to_exitcode(waitpid(pid, 0)[1]), text]), flush=True)
"""


class Scripts:
    """Runs scripts, one after another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, script: str, *arguments: str) -> None:
        """Blocks until the script ends; `sys.argv[1:]` are its arguments.

        :raises AssertionError: if the script fails, or takes too long.
        """
        process = self._process
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([script, *arguments]) + "\n")
        process.stdin.flush()
        code, output = json.loads(process.stdout.readline())
        assert code == 0, f"the script ended with {code}: {output}"


@contextlib.contextmanager
def scripts(set_up: str) -> Iterator[Scripts]:
    """Starts a process that runs `set_up`. Every script begins with the names that `set_up` has defined.

    :param set_up: Python that patches and imports. It must start no threads and no greenlets.
    """
    command = [sys.executable, "-W", "error", "-c", BEGIN + set_up + FORK.format(seconds=SECONDS)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        yield Scripts(process)
