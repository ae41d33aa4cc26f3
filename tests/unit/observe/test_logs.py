"""Logs: one line an event whatever is in it, in both formats, and never a secret."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgamb.observe.logs import JsonFormatter, TextFormatter, mask_dsn, setup_logging


class Colour(StrEnum):
    RED = "red"


def record(
    message: str, kv: object = None, *, level: int = logging.INFO, name: str = "pgamb.test"
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, None, None)
    made.created = 1_782_907_200.25
    if kv is not None:
        made.kv = kv
    return made


def text(message: str, kv: object = None, *, level: int = logging.INFO, name: str = "pgamb.test") -> str:
    return TextFormatter().format(record(message, kv, level=level, name=name))


@pytest.fixture
def root_logger() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("pgamb")
    before = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)


def test_a_line_of_text() -> None:
    values = {"node": "pg1", "why": "a b", "lag_s": 0.25, "n": 3, "ok": True, "none": None, "nodes": ["a", "b"]}
    assert text("primary.changed", values) == (
        '2026-07-01T12:00:00.250Z INFO  primary.changed node=pg1 why="a b" lag_s=0.25 n=3 ok=true none=none nodes=a,b'
    )


def test_a_line_of_json() -> None:
    line = JsonFormatter().format(
        record("x.y", {"role": Colour.RED, "nodes": ("a",), "event": "inner"}, level=logging.WARNING)
    )
    assert json.loads(line) == {
        "time": "2026-07-01T12:00:00.250Z",
        "level": "warn",
        "event": "x.y",
        "role": "red",
        "nodes": ["a"],
        "event_": "inner",
    }


def test_anothers_sentence_becomes_the_event_log() -> None:
    line = text("Task was destroyed but it is pending!", name="asyncio", level=logging.ERROR)
    assert line.endswith('ERROR log message="Task was destroyed but it is pending!" logger=asyncio')


def test_an_exception_stays_on_one_line() -> None:
    try:
        raise RuntimeError("no way to postgresql://u:hunter2@h/d")
    except RuntimeError:
        made = record("process.crashed", level=logging.CRITICAL)
        made.exc_info = sys.exc_info()
    for line in (TextFormatter().format(made), JsonFormatter().format(made)):
        assert "\n" not in line
        assert "hunter2" not in line
        assert "RuntimeError" in line
        assert "test_logs.py" in line


hostile = st.dictionaries(
    st.text(alphabet="abc_", min_size=1, max_size=5),
    st.text() | st.floats() | st.integers() | st.none() | st.lists(st.text()),
)


@given(st.text(), hostile)
def test_no_value_makes_a_second_line(message: str, values: dict[str, object]) -> None:
    line = text(message.replace("%", ""), values)
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    json.loads(JsonFormatter().format(record(message.replace("%", ""), values)))


@pytest.mark.parametrize(
    ("given_text", "masked"),
    [
        ("postgresql://u:pw@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:p@w:x@h,h2:1/d?a=b@c", "postgresql://u:***@h,h2:1/d?a=b@c"),
        ("postgresql://u:p/w@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d?password=pw&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
        ("postgresql://h/d?sslpassword=pw", "postgresql://h/d?sslpassword=***"),
        ("etcd://root:pw@h:2379,h2:2379/prefix", "etcd://root:***@h:2379,h2:2379/prefix"),
        ("cannot reach postgresql://u:pw@h, sorry", "cannot reach postgresql://u:***@h, sorry"),
        ("host=h password=pw user=u", "host=h password=*** user=u"),
        ("host=h password = 'p w\\'x' user=u", "host=h password = *** user=u"),
        ("postgresql://u:p'w\"x@h/d", "postgresql://u:***@h/d"),
        ('{"dsn":"postgresql://u:pw@h/d","x":"a@b"}', '{"dsn":"postgresql://u:***@h/d","x":"a@b"}'),
        ("SCRAM-SHA-256$4096:c2FsdA==$a+b/c=:d=", "***"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://[::1]:5432/d", "postgresql://[::1]:5432/d"),
        ("nothing here: a@b", "nothing here: a@b"),
        ("-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY----- x", "*** x"),
    ],
)
def test_mask(given_text: str, masked: str) -> None:
    assert mask_dsn(given_text) == masked


@given(st.text(alphabet="hunter2:@/?#&'\"=%<>", min_size=1, max_size=12))
def test_mask_never_leaves_the_password_of_a_url(password: str) -> None:
    assert f":{password}@" not in mask_dsn(f"postgresql://u:{password}@host/d") or password == "***"


def test_values_with_a_secret_s_name_are_masked() -> None:
    assert text("e", {"password": "pw", "client_secret": "pw", "dsn": "postgresql://u:pw@h"}).endswith(
        " e password=*** client_secret=*** dsn=postgresql://u:***@h"
    )


@pytest.mark.usefixtures("root_logger")
def test_levels() -> None:
    stream = io.StringIO()
    setup_logging("text", "info", stream=stream)
    logging.getLogger("pgamb.x").info("shown")
    logging.getLogger("pgamb.x").debug("hidden")
    logging.getLogger("asyncio").info("others are hidden below warning")
    logging.getLogger("asyncio").warning("others")
    setup_logging("json", "error", stream=stream)
    logging.getLogger("pgamb.x").warning("hidden")
    logging.getLogger("pgamb.x").error("shown")
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["INFO", "WARN"]
    assert json.loads(lines[2])["event"] == "shown"
    assert len(lines) == 3
