"""The options of redis-py that a broker URL may have."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

#: Options that only say how to reach the server and how to log in. All other options of redis-py change what
#: the package relies on: how replies are decoded, how long a call takes, how often a command is repeated.
ALLOWED = {
    "client_name",
    "db",
    "max_connections",
    "password",
    "socket_keepalive",
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_exclude_verify_flags",
    "ssl_include_verify_flags",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
    "username",
}
_TIMES = {"socket_timeout", "socket_connect_timeout", "timeout"}
#: Prefix of the options that are for the sentinels.
FOR_SENTINELS = "sentinel_"


def wrong_option(url: str, *, sentinel: bool = False) -> str:
    """Returns what is wrong with the options of a URL, as the end of "must be …"; "" if nothing is wrong.

    :param sentinel: whether options may have the prefix `sentinel_`.
    """
    for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        option = name.removeprefix(FOR_SENTINELS) if sentinel else name
        if option in _TIMES:
            return f"a URL without the option {name!r}: set SSE_PUSH_PUBLISH_TIMEOUT instead"
        if option not in ALLOWED:
            allowed = ", ".join(sorted(ALLOWED))
            return f"a URL without the option {name[:40]!r}: possible are {allowed}"
    return ""
