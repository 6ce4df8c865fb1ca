"""Which broker a URL names, and the errors for wrong URLs."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, OutOfMemoryError

from flask_sse_push import BrokerUnavailable, ConfigError
from flask_sse_push.brokers.redis import cluster, sentinel
from flask_sse_push.brokers.redis.options import ALLOWED
from flask_sse_push.brokers.redis.refusals import advice
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings, without_secret
from tests.support.processes import free_port


@pytest.mark.parametrize(
    ("url", "sentinels", "name", "options", "sentinel_options"),
    [
        ("redis+sentinel://h1/shop", [("h1", 26379)], "shop", {}, {}),
        (
            "redis+sentinel://h1:1,h2,[::1]:3/shop/5",
            [("h1", 1), ("h2", 26379), ("::1", 3)],
            "shop",
            {"db": 5},
            {},
        ),
        ("redis+sentinel://h1/shop?db=3", [("h1", 26379)], "shop", {"db": 3}, {}),
        (
            "redis+sentinel://me:p%40ss@h1/my%20shop",
            [("h1", 26379)],
            "my shop",
            {"username": "me", "password": "p@ss"},
            {},
        ),
        (
            "redis+sentinel://h1/shop?socket_timeout=3&sentinel_username=u&sentinel_password=a%2Fb",
            [("h1", 26379)],
            "shop",
            {"socket_timeout": 3.0},
            {"username": "u", "password": "a/b"},
        ),
    ],
)
def test_a_sentinel_url(
    url: str, sentinels: list[Any], name: str, options: dict[str, Any], sentinel_options: dict[str, Any]
) -> None:
    service = sentinel.parse(url)
    assert service.sentinels == sentinels
    assert service.name == name
    assert service.options == {"ssl": False, **options}
    assert service.sentinel_options == {"ssl": False, **sentinel_options}


def test_tls_is_for_the_sentinels_too() -> None:
    service = sentinel.parse("rediss+sentinel://h1/shop?ssl_cert_reqs=none&sentinel_ssl_cert_reqs=none")
    assert service.options == service.sentinel_options == {"ssl": True, "ssl_cert_reqs": "none"}


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_every_sentinel_scheme_makes_a_broker_and_opens_nothing(scheme: str) -> None:
    connect_broker(Settings(broker_url=f"{scheme}+sentinel://nowhere.invalid/shop")).close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://",
        "redis+sentinel://h1",
        "redis+sentinel://h1/",
        "redis+sentinel:///shop",
        "redis+sentinel://h1,,h2/shop",
        "redis+sentinel://h1:port/shop",
        "redis+sentinel://h1/shop/one",
        "redis+sentinel://h1/shop/1_0",
    ],
)
def test_a_wrong_sentinel_url_is_named_with_what_is_expected(url: str) -> None:
    with pytest.raises(ConfigError, match="sentinel1:port,sentinel2/service/database"):
        connect_broker(Settings(broker_url=url))


def test_a_wrong_url_is_shown_without_its_secrets() -> None:
    url = "redis+sentinel://user:secret@h1/shop/one?sentinel_password=another-secret"
    assert without_secret(url) == "redis+sentinel://***@h1/shop/one?***"
    with pytest.raises(ConfigError) as caught:
        connect_broker(Settings(broker_url=url))
    assert "secret" not in str(caught.value).replace("password", "")


def test_a_cluster_url() -> None:
    nodes = cluster.parse("rediss+cluster://me:p%40ss@h1:1,h2,[::1]:3/0?socket_timeout=3")
    assert nodes.addresses == [("h1", 1), ("h2", 6379), ("::1", 3)]
    assert nodes.options == {"ssl": True, "username": "me", "password": "p@ss", "socket_timeout": 3.0}


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_every_cluster_scheme_makes_a_broker_and_opens_nothing(scheme: str) -> None:
    connect_broker(Settings(broker_url=f"{scheme}+cluster://nowhere.invalid")).close()


@pytest.mark.parametrize(
    "url", ["redis+cluster://", "redis+cluster://h1,,h2", "redis+cluster://h1/1", "redis+cluster://h1?db=2"]
)
def test_a_wrong_cluster_url_is_named_with_what_is_expected(url: str) -> None:
    with pytest.raises(ConfigError, match="node1:port,node2"):
        connect_broker(Settings(broker_url=url))


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
@pytest.mark.parametrize("database", ["x", "1_0", "٣", "-1", "0/1", "%31_0", " "])
def test_a_database_that_is_no_number_is_refused(scheme: str, database: str) -> None:
    with pytest.raises(ConfigError, match="a URL that ends with the number of a database, such as /0"):
        connect_broker(Settings(broker_url=f"{scheme}://h/{database}"))
    with pytest.raises(ConfigError, match="a URL whose option 'db' is a whole number"):
        connect_broker(Settings(broker_url=f"{scheme}://h?db={database}"))
    for path in ("", "/", "/0", "/15"):
        connect_broker(Settings(broker_url=f"{scheme}://h{path}")).close()


@pytest.mark.parametrize("idle", ["", "1_0", "٣0", "nan", "1e3", "0.5", "86401"])
def test_an_idle_time_that_is_no_number_of_seconds_is_refused(idle: str) -> None:
    with pytest.raises(ConfigError, match="a number of seconds from 1 to 86400"):
        connect_broker(Settings(broker_url=f"embedded://?idle={idle}"))


@pytest.mark.parametrize("url", ["embedded://two words", "embedded://h/0", "embedded://?protocol=3"])
def test_a_wrong_embedded_url_is_named_with_what_is_expected(url: str) -> None:
    with pytest.raises(ConfigError, match=r"embedded:// or embedded://name, .*no option but idle"):
        connect_broker(Settings(broker_url=url))


REFUSED = [
    "protocol=3",
    "decode_responses=True",
    "decode_responses=",
    "encoding=latin-1",
    "encoding_errors=ignore",
    "single_connection_client=True",
    "retry_on_timeout=True",
    "retry_on_error=x",
    "retry=3",
    "health_check_interval=5",
    "socket_timeout=3",
    "socket_connect_timeout=3",
    "timeout=3",
    "socket_read_size=1",
    "parser_class=x",
    "legacy_responses=false",
    "lib_name=x",
    "foo=1",
    "DB=1",
    "client_name=x&protocol=3",
]


@pytest.mark.parametrize(
    "base", ["redis://h/0", "rediss://h", "unix:///s", "valkey+cluster://h1,h2", "redis+sentinel://h/s"]
)
@pytest.mark.parametrize("query", REFUSED)
def test_an_option_that_changes_what_the_package_relies_on_is_refused(base: str, query: str) -> None:
    name = query.split("&")[-1].split("=")[0]
    with pytest.raises(ConfigError, match=rf"SSE_PUSH_BROKER_URL .* without the option '{name}'"):
        connect_broker(Settings(broker_url=f"{base}?{query}"))


def test_options_for_the_sentinels_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="without the option 'sentinel_protocol'"):
        connect_broker(Settings(broker_url="redis+sentinel://h/s?sentinel_protocol=3"))
    with pytest.raises(ConfigError, match="without the option 'sentinel_password'"):
        connect_broker(Settings(broker_url="redis://h/0?sentinel_password=secret"))


def test_the_password_of_a_url_with_a_wrong_option_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        connect_broker(Settings(broker_url="redis://me:secret@h/0?protocol=3&password=secret2"))
    assert "secret" not in str(caught.value)


TLS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_check_hostname", "ssl_include_verify_flags", "ssl_keyfile")


@pytest.mark.parametrize(
    "base", ["redis://h/0", "unix:///s", "valkey+cluster://h1,h2", "redis+sentinel://h/s"]
)
@pytest.mark.parametrize("option", TLS)
def test_options_of_tls_need_tls(base: str, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"without the option '{option}', or with rediss:// in place of"):
        connect_broker(Settings(broker_url=f"{base}?{option}=none"))


VALUES = {
    "max_connections": ["0", "-1", "99999999999999999999", "", "ten"],
    "ssl_ca_data": ["%C3%A9", ""],
    "ssl_cert_reqs": ["yes", "", "CERT_NONE"],
    "ssl_min_version": ["1", "TLSv1.2", ""],
    "ssl_keyfile": ["/key.pem"],
}


@pytest.mark.parametrize(
    "base", ["rediss://h", "valkeys+cluster://h1,h2", "rediss+sentinel://h/s", "sentinel"]
)
@pytest.mark.parametrize(("option", "value"), [(name, each) for name in VALUES for each in VALUES[name]])
def test_values_that_redis_py_cannot_use_are_refused(base: str, option: str, value: str) -> None:
    if base == "sentinel":
        base, option = "rediss+sentinel://h/s", f"sentinel_{option}"
    with pytest.raises(ConfigError, match=rf"option '{option}' is|that has the option .* beside '{option}'"):
        connect_broker(Settings(broker_url=f"{base}?{option}={value}"))


def test_a_unix_socket_has_no_keepalive() -> None:
    with pytest.raises(ConfigError, match="which a unix socket does not have"):
        connect_broker(Settings(broker_url="unix:///s?socket_keepalive=1"))


@pytest.mark.parametrize("base", ["redis://h/0", "rediss://h/0", "unix:///s"])
@pytest.mark.parametrize("option", sorted(ALLOWED))
def test_every_option_is_refused_or_makes_connections(base: str, option: str) -> None:
    for value in ("", "0", "1", "-1", "x", "none", "%FF", "VERIFY_X509_STRICT"):
        with contextlib.suppress(ConfigError):
            broker = connect_broker(Settings(broker_url=f"{base}?{option}={value}"))
            broker.pool.connection_class(**broker.pool.connection_kwargs)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/0?client_name=x&max_connections=5&socket_keepalive=1&username=u&password=p&db=2",
        "rediss://h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none&ssl_check_hostname=false&ssl_certfile=c&ssl_keyfile=k",
        "unix:///s?db=1",
    ],
)
def test_options_that_say_how_to_connect_are_allowed(url: str) -> None:
    connect_broker(Settings(broker_url=url)).close()


@pytest.mark.parametrize("key", ["SSE_PUSH_BROKER_URL", "REDIS_URL", "SSE_REDIS_URL"])
@pytest.mark.parametrize(
    "rest",
    [
        "redis://me:secret@127.0.0.1:{}/0",
        "redis+sentinel://:secret@127.0.0.1:{}/shop",
        "redis+cluster://:secret@127.0.0.1:{}",
    ],
)
def test_an_error_names_the_setting_without_its_password_and_the_doctor(key: str, rest: str) -> None:
    url = rest.format(free_port())
    broker = connect_broker(Settings.load({key: url, "SSE_PUSH_PUBLISH_TIMEOUT": 1}, {}))
    with pytest.raises(BrokerUnavailable) as caught:
        broker.shards[0].probe("x")
    with pytest.raises(BrokerUnavailable) as of_link:
        broker.shards[0].link("x")
    for text in (str(caught.value), str(of_link.value)):
        shown = without_secret(url)
        assert text.endswith(f" (check {key}, which is {shown}: run `flask sse doctor`)")
        assert "secret" not in text
        assert text.count("flask sse doctor") == 1


def test_a_refused_password_is_named_with_its_setting() -> None:
    error = AuthenticationError("invalid username-password pair or user is disabled.")
    assert advice(error, "REDIS_URL, which is redis://***@h") == (
        " (correct user and password in REDIS_URL, which is redis://***@h: run `flask sse doctor`)"
    )
    assert advice(OutOfMemoryError("x"), "REDIS_URL, which is redis://h").startswith(" (the server has used")


def test_a_url_that_is_not_valid_is_named_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_URL is 'redis"):
        connect_broker(Settings.load({"REDIS_URL": "redis://h:port"}, {}))
