"""Metrics, health and clients' reports over HTTP: access, content, limits."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from flask import Flask

from flask_sse_push import BrokerUnavailable, SSEBlueprint
from flask_sse_push.brokers.memory import MemoryBroker
from flask_sse_push.brokers.redis.broker import connect
from flask_sse_push.brokers.redis.client import BrokerSettings
from flask_sse_push.brokers.sharded import ShardedBroker
from flask_sse_push.hub.counters import CounterKey
from flask_sse_push.web import operations
from tests.support.policies import keeping
from tests.support.processes import free_port
from tests.support.scrape import parsed

from .conftest import MakeApp
from .test_blueprint import listening

POLICIES = keeping(100, 60.0)


def open_to_all(made: tuple[Flask, SSEBlueprint]) -> tuple[Flask, SSEBlueprint]:
    made[1].authorize_admin(lambda user: True)
    return made


@pytest.mark.parametrize("path", ["metrics", "health"])
def test_only_operators_see_metrics_and_health(make_app: MakeApp, path: str) -> None:
    app, sse = make_app()
    client = app.test_client()
    assert client.get(f"/stream/{path}").status_code == 404

    sse.authorize_admin(lambda user: user == "root")
    assert client.get(f"/stream/{path}").status_code == 403
    sse.identify(lambda request: request.headers.get("X-User"))
    assert client.get(f"/stream/{path}").status_code == 401
    assert client.get(f"/stream/{path}", headers={"X-User": "guest"}).status_code == 403
    assert client.get(f"/stream/{path}", headers={"X-User": "root"}).status_code == 200


def test_a_single_process_needs_no_metrics_folder(make_app: MakeApp) -> None:
    app, sse = open_to_all(make_app())
    client = app.test_client()
    before = parsed(client.get("/stream/metrics").text)
    with app.app_context():
        sse.publish("a")
        sse.publish_many([{"data": "b"}, {"data": "c"}])
    client.get("/stream?channels=closed")
    answer = client.get("/stream/metrics")
    after = parsed(answer.text)
    assert after.get_value("events_published_total") - before.get_value("events_published_total") == 3
    assert after.get_value("refused_total", "1201") - before.get_value("refused_total", "1201") == 1
    assert answer.content_type.startswith("text/plain; version=")
    assert answer.headers["Cache-Control"] == "no-store"


def test_commands_do_not_count_as_published_events(make_app: MakeApp) -> None:
    app, sse = make_app()
    with app.app_context():
        sse.disconnect(user_id=1)
        assert sse.services.publishing.counters.totals() == {}


def test_a_scraper_that_accepts_openmetrics_gets_it(make_app: MakeApp) -> None:
    app, _ = open_to_all(make_app())
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = app.test_client().get("/stream/metrics", headers=accept)
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_without_prometheus_client_metrics_say_what_to_install(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "has_prometheus", lambda: False)
    app, _ = open_to_all(make_app())
    answer = app.test_client().get("/stream/metrics")
    assert answer.status_code == 503
    assert "flask-sse-push[metrics]" in answer.get_json()["message"]


def test_a_healthy_worker_answers_200(make_app: MakeApp) -> None:
    app, _ = open_to_all(make_app())
    answer = app.test_client().get("/stream/health")
    assert answer.status_code == 200
    body = answer.get_json()
    assert (body["status"], body["reasons"], body["streams"]) == ("HEALTHY", [], 0)
    assert 0 <= body["broker_seconds"] < 30


def test_a_broker_that_does_not_answer_is_critical(make_app: MakeApp) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    app, _ = open_to_all(make_app(broker_url=url, publish_timeout=0.2))
    answer = app.test_client().get("/stream/health")
    assert answer.status_code == 503
    [reason] = answer.get_json()["reasons"]
    assert reason["status"] == "CRITICAL"
    assert "does not answer" in reason["what"]
    assert reason["advice"]


def test_each_shard_must_answer() -> None:
    here = MemoryBroker(POLICIES)
    gone = connect(f"redis://127.0.0.1:{free_port()}/0", BrokerSettings(POLICIES, "sse:", 0.2))
    assert 0 <= operations.slowest_call(ShardedBroker([here, MemoryBroker(POLICIES)])) < 30
    for shards in ([gone, here], [here, gone]):
        with pytest.raises(BrokerUnavailable, match="refused"):
            operations.slowest_call(ShardedBroker(shards))
    gone.close()


# -- reports ------------------------------------------------------------------------------------------------


def test_a_report_is_counted(make_app: MakeApp) -> None:
    app, sse = make_app()
    assert (
        app.test_client().post("/stream/report", json={"opened": 2, "lost": 1, "errors": 0}).status_code
        == 204
    )
    with app.app_context():
        counts = {
            count.label: n
            for count, n in sse.services.publishing.counters.totals().items()
            if count.name == "client"
        }
    assert counts == {"opened": 2, "lost": 1}


def test_the_times_in_a_report_go_into_the_histogram(make_app: MakeApp) -> None:
    app, _ = open_to_all(make_app())
    client = app.test_client()

    def total() -> tuple[float, float]:
        samples = parsed(client.get("/stream/metrics").text)
        name = "browser_latency_seconds_"
        return samples.get_value(f"{name}count"), samples.get_value(f"{name}sum")

    before = total()
    assert client.post("/stream/report", json={"latency": [0, 250, 600_000]}).status_code == 204
    assert client.post("/stream/report", json={"latency": []}).status_code == 204
    after = total()
    assert (after[0] - before[0], round(after[1] - before[1], 6)) == (3, 600.25)


def test_sse_open_has_the_broker_s_time_once_somebody_has_read_metrics(make_app: MakeApp) -> None:
    for wanted in (False, True):
        app, sse = make_app()
        with app.app_context():
            if wanted:
                sse.services.publishing.reporter.export()
        began = time.time()
        with listening(app.test_client(), "/stream") as reader:
            told = json.loads(reader.next()["data"]).get("time")
        assert (told is not None) == wanted
        assert told is None or began - 0.1 < told / 1000 < time.time() + 0.1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"opened": -1}, 400),
        ({"opened": 10_001}, 400),
        ({"opened": True}, 400),
        ({"opened": "1"}, 400),
        ({"name": 1}, 400),
        ({"latency": 5}, 400),
        ({"latency": [1.5]}, 400),
        ({"latency": [True]}, 400),
        ({"latency": [-1]}, 400),
        ({"opened": 1, "latency": [600_001]}, 400),
        ({"opened": 1, "latency": [1] * 51}, 400),
        ([1], 400),
        ({"opened": 1, "x": "y" * 2000}, 413),
    ],
)
def test_an_invalid_report_counts_nothing(make_app: MakeApp, body: Any, status: int) -> None:
    app, sse = make_app()
    assert app.test_client().post("/stream/report", json=body).status_code == status
    with app.app_context():
        counters = sse.services.publishing.counters
        assert not [count for count in counters.totals() if count.name == "client"]
        assert not counters.handled


def test_reports_of_other_origins_and_forms_are_refused(make_app: MakeApp) -> None:
    app, _ = make_app()
    client = app.test_client()
    assert client.post("/stream/report", data='{"opened": 1}', content_type="text/plain").status_code == 415
    foreign = {"Origin": "https://elsewhere.example"}
    assert client.post("/stream/report", json={"opened": 1}, headers=foreign).status_code == 403


def test_reports_are_limited_in_number(make_app: MakeApp) -> None:
    app, sse = make_app()
    client = app.test_client()
    codes = [client.post("/stream/report", json={"lost": 1}).status_code for _ in range(200)]
    assert codes[:100] == [204] * 100
    assert codes.count(429) >= 50
    with app.app_context():
        assert sse.services.publishing.counters.totals()[CounterKey("client", "lost")] == codes.count(204)
