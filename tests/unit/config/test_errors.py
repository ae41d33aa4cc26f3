"""What is said about bad configuration: the option, where its value came from, the value, and what would be right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pgamb.config import ClientOptions, ServerOptions, load
from pgamb.errors import ConfigError

REGISTRY: dict[str, object] = {"registry": "etcd://h"}


def refusal(
    flags: Mapping[str, object] | None = None,
    environ: dict[str, str] | None = None,
    config: str | None = None,
    *,
    server: bool = False,
) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(ServerOptions if server else ClientOptions, flags=flags or {}, environ=environ or {}, config=config)
    return caught.value.message, caught.value.hint or ""


@pytest.mark.parametrize(
    ("field", "text", "message", "hint"),
    [
        ("pool_size", "many", '--pool-size: "many" is not a whole number', "from 1 to 10000"),
        ("pool_size", "0", '--pool-size: "0" is out of range', "from 1 to 10000"),
        ("pool_size", "2.5", '--pool-size: "2.5" is not a whole number', "whole number"),
        ("pool_size", "9" * 40, "is not a whole number", "from 1 to 10000"),
        ("pool_size", "", '--pool-size: "" is not a whole number', "whole number"),
        ("hold_timeout_s", "soon", '--hold-timeout: "soon" is not a duration', "from 0 to 1d"),
        ("hold_timeout_s", "-1", '--hold-timeout: "-1" is not a duration', "500ms"),
        ("hold_timeout_s", "nan", "is not a duration", "500ms"),
        ("hold_timeout_s", "2d", '--hold-timeout: "2d" is out of range', "from 0 to 1d"),
        ("auth", "md5", '--auth: "md5" is not one of the words known here', "one of auto, scram, password, trust"),
        ("tls_required", "perhaps", "is neither true nor false", "true or false"),
        ("service", "a/b", '--service: "a/b" is not a name', "letters, digits"),
        ("service", " ", '--service: " " is empty', "letters, digits"),
        ("registry", "h:2379", "--registry: the value is not a URL", "etcd://127.0.0.1:2379"),
        ("registry", "http://h", 'the value begins with "http://", which is not one of etcd, etcds', "etcd://"),
        ("registry", "etcd://", "--registry: the value names no host", "etcd://"),
        ("auth_dsn", "host=h user=u password=pw", "--auth-dsn: the value is not a URL", "postgresql://USER"),
        ("listen", ("70000",), '--listen: "70000": "70000" is not a port', "up to 65535"),
        ("listen", ("::1:5432",), '--listen: "::1:5432" is ambiguous', "[::1]:5432"),
        ("listen", ("db",), '--listen: "db" has no port', "HOST:PORT"),
        ("listen", ("a b:1",), "is neither a host name nor an IP address", "HOST:PORT"),
        ("listen", ("/" + "x" * 120,), "is too long for a unix socket", "shorter folder"),
        ("listen", ("1", "1"), "names an address twice", "PORT"),
        ("listen", (",",), "is empty", "PORT"),
    ],
)
def test_a_bad_flag(field: str, text: object, message: str, hint: str) -> None:
    said, advice = refusal(REGISTRY | {field: text})
    assert message in said
    assert hint in advice
    assert said.startswith("--")


def test_a_bad_variable_is_named_as_the_variable() -> None:
    said, _ = refusal(REGISTRY, {"PGAMB_POOL_SIZE": "x"})
    assert said == 'PGAMB_POOL_SIZE: "x" is not a whole number'


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("pool_size = true", ": pool_size: true is not a whole number", "from 1 to 10000"),
        ("pool_size = 2.5", ": pool_size: 2.5 is not a whole number", "from 1 to 10000"),
        ("zone = 3", ": zone: 3 is not a text", "letters"),
        ("listen = []", ": listen: [] names no address", "PORT"),
        ("hold_timeout = inf", ": hold_timeout: inf is not a duration", "500ms"),
        ("tls_required = 1", ": tls_required: 1 is neither true nor false", "true or false"),
        ("[client]\npool_size = 0", ": client.pool_size: 0 is out of range", "from 1"),
        ("pool_sice = 3", ': unknown key "pool_sice"', 'did you mean "pool_size"?'),
        ("pool-size = 3", ': unknown key "pool-size"', 'did you mean "pool_size"?'),
        ("hold_timeout_s = 3", ': unknown key "hold_timeout_s"', 'did you mean "hold_timeout"?'),
        ("[client]\nttl = 3", ': unknown key "client.ttl"', "known here: auth, "),
        ("[cleint]\npool_size = 3", ': unknown key "cleint"', 'did you mean "client"?'),
        ("client = 3", ": client is not a table", "[client]"),
        ("pool_size == 3", ": not TOML: ", "pool_size = 20"),
    ],
)
def test_a_bad_file(text: str, message: str, hint: str, tmp_path: Path) -> None:
    file = tmp_path / "pgamb.toml"
    file.write_text(text + "\n")
    said, advice = refusal(REGISTRY, config=str(file))
    assert said.startswith(f"{file}{message}")
    assert hint in advice


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.toml")
    assert refusal(REGISTRY, config=missing)[0] == f'--config: "{missing}" cannot be read: No such file or directory'
    assert refusal(REGISTRY, {"PGAMB_CONFIG": missing})[0].startswith(f'PGAMB_CONFIG: "{missing}" cannot be read')


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "pgamb.toml"
    file.write_bytes(b"\xff\xfe")
    assert "it is not UTF-8 text" in refusal(REGISTRY, config=str(file))[0]


def test_what_is_required_is_asked_for() -> None:
    said, advice = refusal(REGISTRY, server=True)
    assert said == "--dsn is missing"
    for way in ("--dsn DSN", "PGAMB_DSN", "PGAMB_DSN_FILE", "--config", "postgresql://"):
        assert way in advice


def test_no_message_shows_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "pgamb.toml"
    file.write_text('auth_dsn = "hunter2"\n')
    for said in (
        refusal({"registry": "bad://u:hunter2@h"}),
        refusal({}, {"PGAMB_REGISTRY": "hunter2"}),
        refusal(REGISTRY, config=str(file)),
    ):
        assert "hunter2" not in "".join(said)


def test_a_secret_given_twice_or_missing_or_empty(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert "are both set" in refusal({}, {"PGAMB_REGISTRY": "etcd://h", "PGAMB_REGISTRY_FILE": "/x"})[0]
    assert "cannot be read: No such file" in refusal({}, {"PGAMB_REGISTRY_FILE": "/no/such/file"})[0]
    assert "is empty" in refusal({}, {"PGAMB_REGISTRY_FILE": str(empty)})[0]


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        ({"tls_cert": "/c"}, "--tls-cert is given without --tls-key", "give --tls-key too"),
        ({"tls_key": "/k"}, "--tls-key is given without --tls-cert", "give --tls-cert too"),
        ({"server_key": "/k"}, "--server-key is given without --server-cert", "give --server-cert too"),
        ({"registry_cert": "/c"}, "--registry-cert is given without --registry-key", "give --registry-key too"),
        ({"tls_required": True}, "--tls-required needs a certificate", "--tls-cert"),
        ({"server_tls": "verify-ca"}, "--server-tls verify-ca needs CA certificates", "--server-ca FILE"),
        ({"auth": "scram"}, "--auth scram needs the verifiers", "--auth-dsn"),
        ({"auth": "trust", "listen": (":1",)}, "--auth trust would let anyone in", "--trust-remote"),
    ],
)
def test_client_options_that_contradict(flags: dict[str, object], message: str, hint: str) -> None:
    said, advice = refusal(REGISTRY | flags)
    assert message in said
    assert hint in advice


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"registry": "static://h"}, "has nothing to announce to"),
        ({"registry": "patroni+etcd://h/s"}, "needs no agent"),
        ({"probe_interval_s": "5"}, "--probe-interval 5 is not shorter than --ttl 5"),
        ({"advertise": "h:0"}, '--advertise: "0" in "h:0" is not a port'),
    ],
)
def test_server_options_that_contradict(flags: dict[str, object], message: str) -> None:
    assert message in refusal(REGISTRY | {"dsn": "postgresql://h"} | flags, server=True)[0]


@pytest.mark.parametrize(
    "flags",
    [
        {"auth": "trust"},
        {"auth": "trust", "listen": ("/run/x", "[::1]:1", "127.1.2.3:1", "localhost:2")},
        {"auth": "trust", "listen": (":1",), "trust_remote": True},
        {"auth": "scram", "auth_file": "/u"},
    ],
)
def test_what_is_allowed_is_allowed(flags: dict[str, object]) -> None:
    assert load(ClientOptions, flags=REGISTRY | flags, environ={}).warnings == ()


def test_a_slip_in_a_variable_is_warned_about() -> None:
    environ = {"PGAMB_POOLSIZE": "3", "PGAMB_PG_BIN": "/x", "PGAMB_SERVICE_HOST": "10.0.0.1", "PGAMB_DEMO_PRIMARY": "x"}
    (warning,) = load(ClientOptions, flags=REGISTRY, environ=environ).warnings
    assert warning.message == "PGAMB_POOLSIZE is not a variable of pgamb"
    assert warning.hint == "did you mean PGAMB_POOL_SIZE?"


def test_a_log_in_that_nobody_can_do_is_warned_about() -> None:
    (warning,) = load(ClientOptions, flags=REGISTRY | {"listen": (":5432",)}, environ={}).warnings
    assert "nobody can log in from another machine" in warning.message
    secure: dict[str, object] = {"listen": (":5432",), "tls_cert": "/c", "tls_key": "/k"}
    assert load(ClientOptions, flags=REGISTRY | secure, environ={}).warnings == ()
    looked_up: dict[str, object] = {"listen": (":5432",), "auth_dsn": "postgresql://h"}
    assert load(ClientOptions, flags=REGISTRY | looked_up, environ={}).warnings == ()


def test_options_never_show_a_secret() -> None:
    flags = {"registry": "etcd://u:hunter2@h", "dsn": "postgresql://u:hunter2@h/d"}
    loaded = load(ServerOptions, flags=flags, environ={})
    assert "hunter2" not in repr(loaded)
    assert "etcd://u:***@h" in repr(loaded.options)
