import re

import pytest

from infra.addresses import check_bootstrap, check_namespace, check_redis_url
from schemas.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "rediss://user:secret@redis.bank:6380",
        "redis://[::1]:6379/",
        "unix:///run/r.sock",
        "unix:///run/r.sock?db=2",
        "redis://h:6379?username=tidegate&password=p%3F&db=1&socket_timeout=0.5&max_connections=20",
    ],
)
def test_addresses_of_redis_are_taken(url):
    check_redis_url(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:6379", "begins otherwise"),
        ("http://127.0.0.1:6379/0", "begins otherwise"),
        ("redis://user:secret@h:abc/0", "a port that is no number"),
        ("redis://h:70000/0", "a port that is no number"),
        ("redis:///0", "no host"),
        ("redis://user:secret@h:6379/main", "the database of this one is no number"),
        ("redis://user:secret@h/0?socket_timeout=abc", "what this one says of socket_timeout cannot be"),
        ("redis://user:secret@h/0?socket_timeout=nan", "what this one says of socket_timeout cannot be"),
        ("redis://user:secret@h/0?socket_connect_timeout=-1", "says of socket_connect_timeout cannot be"),
        ("redis://user:secret@h/0?db=", "what this one says of db cannot be"),
        ("redis://user:secret@h/0?max_connections=0", "what this one says of max_connections cannot be"),
        (
            "rediss://user:secret@h/0?ssl_cert_reqs=none",
            "an option behind its ? that is none of db, username",
        ),
        ("redis://user:secret@h/0?unknown=1", "an option behind its ? that is none of"),
        ("redis://user:1?secret@h/0", "is written %3F"),
        ("unix://", "no path"),
    ],
)
def test_what_is_no_address_of_redis_is_refused_without_its_password(url, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as refused:
        check_redis_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:9092", "a:9092, b:9093", "[::1]:9092"])
def test_lists_of_brokers_are_taken(bootstrap):
    check_bootstrap(bootstrap)


@pytest.mark.parametrize(
    "bootstrap", ["", "kafka", "kafka:", ":9092", "kafka:abc", "a:9092,b", "kafka:0", "kafka:70000"]
)
def test_what_is_no_list_of_brokers_is_refused(bootstrap):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        check_bootstrap(bootstrap)


@pytest.mark.parametrize("namespace", ["tg", "bank[eu]", "tg:eu", "t?"])
def test_namespaces_are_taken(namespace):
    assert check_namespace(namespace) == namespace


@pytest.mark.parametrize("namespace", ["", "a{b}c", "a b", "a\n", "}"])
def test_what_would_decide_where_a_key_is_is_no_namespace(namespace):
    with pytest.raises(ConfigError, match="a name without braces and spaces"):
        check_namespace(namespace)
