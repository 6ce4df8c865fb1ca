"""The options of redis-py that a broker URL may have."""

from __future__ import annotations

import re
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
#: For some options, a pattern of the values that redis-py can use, and how an error names these values. With
#: other values, connecting raises a TypeError, or goes on for ever.
_VALUES = {
    "db": (r"[0-9]{1,6}", "a whole number"),
    "max_connections": (r"[1-9][0-9]{0,3}|10000", "a whole number from 1 to 10000"),
    "ssl_ca_data": (r"[\0-\x7f]+", "ASCII text"),
    "ssl_cert_reqs": ("none|optional|required", "none, optional or required"),
    "ssl_min_version": ("771|772", "771 for TLS 1.2, or 772 for TLS 1.3"),
}
#: The schemes whose path is the number of a database. redis-py takes database 0 if the path is no number.
_WITH_DATABASE = {"redis", "rediss", "valkey", "valkeys"}
_TIMES = {"socket_timeout", "socket_connect_timeout", "timeout"}
#: Prefix of the options that are for the sentinels.
FOR_SENTINELS = "sentinel_"


def wrong_option(url: str, *, sentinel: bool = False) -> str:
    """Returns what is wrong with the options of a URL, as the end of "must be …"; "" if nothing is wrong.

    :param sentinel: whether options may have the prefix `sentinel_`.
    """
    parts = urlsplit(url)
    if parts.scheme in _WITH_DATABASE and not re.fullmatch(r"/?|/[0-9]{1,6}/?", parts.path):
        return "a URL that ends with the number of a database, such as /0"
    given = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in given:
        option = name.removeprefix(FOR_SENTINELS) if sentinel else name
        if option in _TIMES:
            return f"a URL without the option {name!r}: set SSE_PUSH_PUBLISH_TIMEOUT instead"
        if option not in ALLOWED:
            allowed = ", ".join(sorted(ALLOWED))
            return f"a URL without the option {name[:40]!r}: possible are {allowed}"
        if option.startswith("ssl_") and not parts.scheme.startswith(("rediss", "valkeys")):
            return (
                f"a URL without the option {name!r}, or with rediss:// in place of redis://, which uses TLS"
            )
        if option == "socket_keepalive" and parts.scheme == "unix":
            return f"a URL without the option {name!r}, which a unix socket does not have"
        pattern, values = _VALUES.get(option, ("", ""))
        if pattern and not re.fullmatch(pattern, value):
            return f"a URL whose option {name!r} is {values}"
        if option == "ssl_keyfile" and not dict(given).get(name.replace("keyfile", "certfile")):
            return f"a URL that has the option {name.replace('keyfile', 'certfile')!r} beside {name!r}"
    return ""
