"""What a load takes, from measured costs: sums to be checked by hand, and which bound is reached first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask

from flask_sse_push import SSEBlueprint
from flask_sse_push.capacity import measured
from flask_sse_push.capacity.estimate import TARGET, Load, estimate
from flask_sse_push.config import Settings
from tests.support.processes import ROOT

ROUND = measured.Measured(
    date="2026-01-01", machine="a machine", delivery_us=5, generator_delivery_us=20, own_event_us=105,
    connect_us=500, stream_kb=1, generator_stream_kb=20, kernel_kb=4, worker_kb=50_000, redis_event_us=20,
    redis_worker_us=5,
)  # fmt: skip
SETTINGS = Settings()


def test_one_channel_is_the_streams_times_the_rate() -> None:
    found = estimate(Load(10_000, 20, 200, session=1e9), ROUND, SETTINGS, cores=2)
    # 200,000 deliveries of 5 µs, and 20 events dispatched by each of two workers at 100 µs.
    assert found.worker_share == pytest.approx((1.0 + 0.004) / 2, rel=1e-3)
    assert found.files == 5_100
    assert found.kernel_bytes == 40_000_000
    # 5,000 streams of 1 kB; 1,000 kept events of 200 + 60 + 350 bytes.
    assert found.worker_bytes == 50_000_000 + 5_000_000 + 610_000
    assert found.redis_share == pytest.approx(20 * (20 + 2 * 5) / 1e6)
    assert found.redis_bytes == 1000 * 320
    assert found.network == 200_000 * (200 + 60 + 66) * 8
    assert found.return_seconds == 2.5
    assert found.enough
    assert [bound.name for bound in found.bounds][:2] == [
        "the network to the clients, of 1 Gbit/s",
        "the workers' cores",
    ]


def test_the_fewest_cores_are_within_the_target_and_one_less_is_not() -> None:
    load = Load(50_000, 4, 100)
    found = estimate(load, ROUND, SETTINGS)
    assert found.enough
    assert found.workers > 1
    fewer = estimate(load, ROUND, SETTINGS, cores=found.workers - 1)
    assert max(fewer.worker_share, 50_000 / (found.workers - 1) / SETTINGS.max_streams) > TARGET


def test_many_groups_cost_redis_and_the_workers_more_than_one() -> None:
    one = estimate(Load(10_000, 1, 200), ROUND, SETTINGS, cores=4)
    each = estimate(Load(10_000, 1, 200, groups=10_000), ROUND, SETTINGS, cores=4)
    assert (one.redis_events, each.redis_events) == (1, 10_000)
    # A user's event is heard by the one worker that has the user.
    assert each.redis_share == pytest.approx(10_000 * (20 + 5) / 1e6)
    assert each.worker_share == pytest.approx(one.worker_share + (10_000 * 100 - 4 * 100) / 1e6 / 4)
    assert each.network == one.network
    assert each.redis_bytes == 10_000 * one.redis_bytes


@pytest.mark.parametrize(
    ("load", "cores", "first"),
    [
        (Load(10_000, 100, 50), 2, "the workers' cores"),
        (Load(10_000, 20, 5_000), 32, "the network to the clients, of 1 Gbit/s"),
        (Load(60_000, 0, 100), 2, "places for streams in a worker"),
        (Load(50_000, 1, 100, groups=50_000), 200, "Redis' core"),
    ],
)
def test_what_bounds_first_is_named_and_too_much_is_called_so(load: Load, cores: int, first: str) -> None:
    found = estimate(load, ROUND, SETTINGS, cores)
    assert found.bounds[0].name == first
    assert not found.enough


def test_silence_costs_heartbeats_and_a_generator_costs_more() -> None:
    silent = estimate(Load(15_000, 0, 1, session=1e9), ROUND, SETTINGS, cores=1)
    assert silent.worker_share == pytest.approx(1000 * 5 / 1e6, rel=1e-3)
    by_generator = Load(15_000, 0, 1, session=1e9, transport="generator")
    found = estimate(by_generator, ROUND, SETTINGS, cores=1)
    assert found.worker_share == pytest.approx(1000 * 20 / 1e6, rel=1e-3)
    assert found.worker_bytes - silent.worker_bytes == 15_000 * 19_000


def command(*arguments: str) -> tuple[int, str]:
    app = Flask(__name__)
    app.register_blueprint(SSEBlueprint("sse"), url_prefix="/stream")
    result = app.test_cli_runner().invoke(args=["sse", "capacity", *arguments])
    return result.exit_code, result.output


def test_the_command_says_what_it_takes_what_bounds_and_what_it_assumed() -> None:
    code, text = command("--streams", "1000", "--rate", "1", "--size", "200")
    assert code == 0
    assert "workers     1, one a core" in text
    assert "Bounds first: " in text
    assert measured.load().date in text
    assert "your app's own pages" in text
    assert command("--streams", "1000000", "--rate", "100", "--cores", "1")[0] == 1
    code, text = command("--streams", "5", "--rate", "1", "--groups", "6")
    assert (code, "more than the 5 streams" in text) == (2, True)


def test_the_command_answers_as_json() -> None:
    code, text = command("--streams", "1000", "--rate", "1", "--json", "--cores", "3")
    found = json.loads(text)
    assert (code, found["workers"], found["enough"]) == (0, 3, True)
    assert {"name", "share", "advice"} == set(found["bounds"][0])


TABLE: dict[str, Any] = json.loads((ROOT / "flask_sse_push/capacity/measured.json").read_text("utf-8"))
RUN = ROOT / "docs/benchmarks.json"


def test_every_packaged_figure_is_one_and_says_where_it_comes_from() -> None:
    found = measured.load()
    assert set(TABLE["figures"]) == set(found._fields) - {"date", "machine"}
    assert all(each["value"] > 0 and len(each["from"]) == 3 for each in TABLE["figures"].values())
    assert found.machine


@pytest.mark.skipif(not RUN.exists(), reason="docs/benchmarks.json is not there: make bench writes it")
@pytest.mark.parametrize("name", sorted(TABLE["figures"]))
def test_a_packaged_figure_is_near_the_one_in_the_published_run(name: str) -> None:
    """Within a factor of two: runs differ. `python -m benchmarks.measured` brings it up to date."""
    each = TABLE["figures"][name]
    case, server, figure = each["from"]
    value = json.loads(RUN.read_text("utf-8"))["results"].get(case, {}).get(server, {}).get(figure)
    if value is None:
        pytest.skip("it was not measured in that run")
    assert 0.5 < each["value"] / value < 2
