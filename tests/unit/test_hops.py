"""`benchmarks.hops` counts the calls of an event and of a request. The counts are the same in each run."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks import hops
from benchmarks.hops import Call
from tests.support.processes import ROOT


def test_calls_are_sorted_by_thread_and_changes_of_file_are_counted() -> None:
    one, two = Call("first", "a.py", "f"), Call("second", "b.py", "g")
    calls = hops.by_thread([one, two, one, two])
    assert calls == (one, one, two, two)
    trace = hops.Trace("GET", calls)
    assert (trace.files, trace.changes, trace.reached) == (2, 1, True)


def test_a_path_with_too_many_calls_or_files_misses_the_goal() -> None:
    most_calls, most_files = hops.GOALS["GET"]
    call = Call("first", "a.py", "f")
    assert hops.Trace("GET", (call,) * most_calls).reached
    assert not hops.Trace("GET", (call,) * (most_calls + 1)).reached
    files = [Call("first", f"{number}.py", "f") for number in range(most_files + 1)]
    assert hops.Trace("GET", tuple(files[1:])).reached
    assert not hops.Trace("GET", tuple(files)).reached


def test_a_round_with_periodic_work_in_it_is_not_the_result() -> None:
    call, tick = Call("first", "a.py", "f"), Call("second", "b.py", "tick")
    assert hops.without_periodic_work([(call, tick), (call,), (call,)]) == (call,)
    assert hops.without_periodic_work([(call, tick)] * 3 + [(call,)] * 2) == (call,)
    assert hops.without_periodic_work([(call, tick), (call,)]) == (call,)
    assert hops.without_periodic_work([(call, tick)] * 2 + [(call,)]) == (call, tick)


def test_hops_counts_the_same_calls_in_each_run_and_stays_below_its_bounds() -> None:
    """Runs separate processes, because profiling would continue in the threads of the hub."""
    command = [sys.executable, "-m", "benchmarks.hops", "--json"]
    runs = [
        json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert 20 < runs[0]["publish"]["calls"] <= 56
    assert 5 < runs[0]["publish"]["files"] <= 19
    assert 20 < runs[0]["GET"]["calls"] <= 58
    assert 5 < runs[0]["GET"]["files"] <= 22
