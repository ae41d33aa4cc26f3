"""Every option by flag, by variable and in TOML, and which of them wins."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pgamb.config import ClientOptions, ListenAddress, ServerOptions, StatusOptions, load
from pgamb.config.document import document
from pgamb.config.table import CONFIG_VARIABLE, SECTIONS, Row, section_of, table
from pgamb.registry.model import Address

ROOT = Path(__file__).resolve().parents[3]

# For each field there is: two texts with their values, the first other than the default; how TOML says the first
# without quotes, where it can.
Sample = tuple[str, object, str, object, str | None]
SAMPLES: dict[str, Sample] = {
    "registry": ("etcd://u:p@h:1", "etcd://u:p@h:1", "etcds://k", "etcds://k", None),
    "service": ("orders", "orders", "stock.eu-1", "stock.eu-1", None),
    "registry_ca": ("/a/ca.pem", "/a/ca.pem", "/b", "/b", None),
    "registry_cert": ("/a/cert.pem", "/a/cert.pem", "/b", "/b", None),
    "registry_key": ("/a/key.pem", "/a/key.pem", "/b", "/b", None),
    "log_format": ("json", "json", "JSON", "json", None),
    "log_level": ("debug", "debug", "error", "error", None),
    "listen": (":6432", (ListenAddress("*", 6432),), "/run/x", (ListenAddress("/run/x", 5432),), '[":6432"]'),
    "max_connections": ("7", 7, "8", 8, "7"),
    "login_timeout_s": ("2min", 120.0, "500ms", 0.5, None),
    "auth": ("password", "password", "auto", "auto", None),
    "auth_dsn": ("postgresql://u:p@h/d", "postgresql://u:p@h/d", "postgres://h", "postgres://h", None),
    "auth_file": ("/a/users", "/a/users", "/b", "/b", None),
    "trust_remote": ("true", True, "off", False, "true"),
    "pool_mode": ("session", "session", "transaction", "transaction", None),
    "pool_size": ("3", 3, "4", 4, "3"),
    "consistency": ("session", "session", "eventual", "eventual", None),
    "replica_wait_s": ("0", 0.0, "50ms", 0.05, "0"),
    "max_lag_s": ("5", 5.0, "1min", 60.0, "5"),
    "max_lag_bytes": ("1000", 1000, "2000", 2000, "1000"),
    "transactions": ("exact", "exact", "lazy", "lazy", None),
    "pool_timeout_s": ("0", 0.0, "2.5", 2.5, "0"),
    "hold_timeout_s": ("0.25", 0.25, "1h", 3600.0, "0.25"),
    "idle_timeout_s": ("5min", 300.0, "1d", 86400.0, None),
    "backend_lifetime_s": ("10", 10.0, "20", 20.0, "10"),
    "prepared_statements": ("11", 11, "12", 12, "11"),
    "on_registry_loss": ("serve", "serve", "FENCE", "fence", None),
    "fence_command": ("pg_ctl stop", "pg_ctl stop", "true", "true", None),
    "drain_hold_s": ("5", 5, "6", 6, "5"),
    "connect_timeout_s": ("1", 1.0, "2s", 2.0, "1"),
    "zone": ("a", "a", "b", "b", None),
    "tls_cert": ("/a/cert.pem", "/a/cert.pem", "/b", "/b", None),
    "tls_key": ("/a/key.pem", "/a/key.pem", "/b", "/b", None),
    "tls_required": ("true", True, "no", False, "true"),
    "server_tls": ("require", "require", "disable", "disable", None),
    "server_ca": ("/a/ca.pem", "/a/ca.pem", "/b", "/b", None),
    "server_cert": ("/a/cert.pem", "/a/cert.pem", "/b", "/b", None),
    "server_key": ("/a/key.pem", "/a/key.pem", "/b", "/b", None),
    "status_listen": ("8432", ListenAddress("localhost", 8432), ":1", ListenAddress("*", 1), "8432"),
    "dsn": ("postgresql://u@h/d", "postgresql://u@h/d", "postgres://h:1", "postgres://h:1", None),
    "node": ("pg1", "pg1", "pg2", "pg2", None),
    "weight": ("2", 2, "3", 3, "2"),
    "probe_interval_s": ("500ms", 0.5, "0.1", 0.1, None),
    "takeover": ("true", True, "on", True, "true"),
    "runtime_folder": ("/a/run", "/a/run", "/b", "/b", None),
    "drain_timeout_s": ("5", 5.0, "1min", 60.0, "5"),
    "silence_timeout_s": ("3", 3.0, "1min", 60.0, "3"),
    "ttl_s": ("6", 6, "9", 9, "6"),
    "advertise": ("h:1", Address("h", 1), "[::1]:2", Address("::1", 2), None),
    "timeout_s": ("1", 1.0, "2", 2.0, "1"),
}
OVERRIDES: dict[tuple[type[msgspec.Struct], str], Sample] = {
    (ServerOptions, "listen"): (":6432", ListenAddress("*", 6432), "6433", ListenAddress("localhost", 6433), None),
}
# What an option needs beside it to be accepted at all.
COMPANIONS = {
    "registry_cert": {"registry_key": "/k"},
    "registry_key": {"registry_cert": "/c"},
    "tls_cert": {"tls_key": "/k"},
    "tls_key": {"tls_cert": "/c"},
    "tls_required": {"tls_cert": "/c", "tls_key": "/k"},
    "server_cert": {"server_key": "/k"},
    "server_key": {"server_cert": "/c"},
}
REQUIRED = {"registry": "etcd://r:2379", "dsn": "postgresql://d"}

CASES = [(options, row) for _, options in SECTIONS for row in table(options)]
every_option = pytest.mark.parametrize(
    ("options", "row"), [pytest.param(options, row, id=f"{section_of(options)}-{row.key}") for options, row in CASES]
)


def sample(options: type[msgspec.Struct], row: Row) -> Sample:
    return OVERRIDES.get((options, row.field)) or SAMPLES[row.field]


def others(options: type[msgspec.Struct], row: Row) -> dict[str, object]:
    """Flags without which the option in question would not be accepted."""
    required = {other.field: REQUIRED[other.field] for other in table(options) if other.required}
    return {name: value for name, value in (required | COMPANIONS.get(row.field, {})).items() if name != row.field}


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "pgamb.toml"


@every_option
def test_flag(options: type[msgspec.Struct], row: Row) -> None:
    text, value, *_ = sample(options, row)
    loaded = load(options, flags=others(options, row) | {row.field: text}, environ={})
    assert getattr(loaded.options, row.field) == value
    assert loaded.origins[row.field] == row.flag


@every_option
def test_variable(options: type[msgspec.Struct], row: Row) -> None:
    text, value, *_ = sample(options, row)
    loaded = load(options, flags=others(options, row), environ={row.variable: text})
    assert getattr(loaded.options, row.field) == value
    assert loaded.origins[row.field] == row.variable


@every_option
def test_toml_key(options: type[msgspec.Struct], row: Row, toml: Path) -> None:
    text, value, _, _, bare = sample(options, row)
    for line in filter(None, (f'{row.key} = "{text}"', bare and f"{row.key} = {bare}")):
        toml.write_text(line + "\n")
        loaded = load(options, flags=others(options, row), environ={CONFIG_VARIABLE: str(toml)})
        assert getattr(loaded.options, row.field) == value, line
        assert loaded.origins[row.field] == str(toml)


@every_option
def test_flag_over_variable_over_file_over_default(options: type[msgspec.Struct], row: Row, toml: Path) -> None:
    text, value, other_text, other_value, _ = sample(options, row)
    needed = others(options, row)
    if not row.required:
        alone = {name: text for name, text in needed.items() if name in REQUIRED}
        assert getattr(load(options, flags=alone, environ={}).options, row.field) == row.default != value
    toml.write_text(f'{row.key} = "{text}"\n')
    config = str(toml)
    over_file = load(options, flags=needed, environ={row.variable: other_text}, config=config)
    assert getattr(over_file.options, row.field) == other_value
    over_both = load(options, flags=needed | {row.field: text}, environ={row.variable: other_text}, config=config)
    assert getattr(over_both.options, row.field) == value


@every_option
def test_default_reads_back(options: type[msgspec.Struct], row: Row) -> None:
    if row.default_text is not None:
        assert row.kind.parse(row.default_text) == row.default


@every_option
def test_own_section_over_top_level(options: type[msgspec.Struct], row: Row, toml: Path) -> None:
    text, value, other_text, *_ = sample(options, row)
    toml.write_text(f'{row.key} = "{other_text}"\n[{section_of(options)}]\n{row.key} = "{text}"\n')
    loaded = load(options, flags=others(options, row), environ={}, config=str(toml))
    assert getattr(loaded.options, row.field) == value


def test_another_commands_section_says_nothing(toml: Path) -> None:
    toml.write_text('registry = "etcd://h"\n[server]\nzone = "far"\n[client]\npool_size = 5\n')
    assert load(ClientOptions, flags={}, environ={}, config=str(toml)).options.zone == ""
    assert load(StatusOptions, flags={}, environ={}, config=str(toml)).options.registry == "etcd://h"


def test_names_never_clash() -> None:
    for _, options in SECTIONS:
        names = [name for row in table(options) for name in (row.variable, row.file_variable) if name]
        assert len(names) == len(set(names))
        assert CONFIG_VARIABLE not in names


def test_an_empty_variable_is_not_set() -> None:
    loaded = load(ClientOptions, flags={}, environ={"PGAMB_REGISTRY": "etcd://h", "PGAMB_ZONE": "", "PGAMB_CONFIG": ""})
    assert loaded.options.zone == ""
    assert loaded.origins["zone"] == "default"


def test_a_repeated_flag_and_commas_make_one_list() -> None:
    loaded = load(ClientOptions, flags={"registry": "etcd://h", "listen": ("5432,:1", "/x")}, environ={})
    assert [str(address) for address in loaded.options.listen] == ["5432", ":1", "/x:5432"]


@pytest.mark.parametrize("row", [row for row in table(ServerOptions) if row.option.secret], ids=lambda row: row.key)
def test_a_secret_from_a_file(row: Row, tmp_path: Path) -> None:
    text, value, *_ = SAMPLES[row.field]
    secret = tmp_path / "secret"
    secret.write_text(f"{text}\n")
    assert row.file_variable is not None
    loaded = load(ServerOptions, flags=others(ServerOptions, row), environ={row.file_variable: str(secret)})
    assert getattr(loaded.options, row.field) == value


def test_a_path_in_the_file_is_relative_to_the_file(toml: Path) -> None:
    toml.write_text('registry = "etcd://h"\nregistry_ca = "ca.pem"\n')
    assert load(ClientOptions, flags={}, environ={}, config=str(toml)).options.registry_ca == str(
        toml.parent / "ca.pem"
    )
    assert (
        load(ClientOptions, flags={"registry_ca": "ca.pem"}, environ={}, config=str(toml)).options.registry_ca
        == "ca.pem"
    )


def test_the_page_is_what_the_table_says() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == document(), "run: python -m pgamb.config.document > docs/configuration.md"


def test_the_example_on_the_page_is_accepted(toml: Path) -> None:
    example = document().split("```toml\n")[1].split("```")[0]
    toml.write_text(example)
    client = load(ClientOptions, flags={}, environ={}, config=str(toml)).options
    assert (client.pool_size, client.hold_timeout_s, len(client.listen)) == (40, 60.0, 2)
    server = load(ServerOptions, flags={"dsn": "postgresql://h"}, environ={}, config=str(toml)).options
    assert server.probe_interval_s == 0.5
