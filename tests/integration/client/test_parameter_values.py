"""Parameters of any value reach another backend as they were, whatever encodings and quoting are in force on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.session.parameters import EMPTY, ParameterSet
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.wire import Wire, errors

VALUES = (
    "plain", "it's", "''", "\\", "\\'", "'; DROP TABLE x; --", "$$ $1 $a$", "a\nb\tc", "é ü 表 ソ 😀", '"', "/* x",
    "\\x41", " ", "%s", "x" * 10_000,
)  # fmt: skip
ENCODINGS = ("UTF8", "LATIN1", "SJIS", "EUC_JP", "GB18030", "WIN1252", "SQL_ASCII")


@pytest.fixture(scope="module")
def narrow(postgres: PostgresServer) -> Iterator[Ambassador]:
    """An ambassador with one backend, which every session has to share."""
    with running_ambassador([postgres], "--pool-size", "1") as ambassador:
        yield ambassador


@pytest.mark.parametrize("conforming", ["on", "off"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_synchronised_is_what_was_meant(postgres: PostgresServer, encoding: str, conforming: str) -> None:
    wanted = {b"p9.v%d" % number: value.encode() for number, value in enumerate(VALUES)}
    wanted[b"search_path"] = '"x""y\\z\'w", "ü", public'.encode()
    with Wire(postgres.port).log_in(postgres.credentials.superuser) as wire:
        wire.query(f"SET client_encoding = '{encoding}'; SET standard_conforming_strings = {conforming}")
        found = wire.query_bytes(EMPTY.sync_sql(ParameterSet(wanted)))
        assert errors(found) == []
        wire.query("SET client_encoding = 'UTF8'")
        for name, value in wanted.items():
            assert (wire.value(f"SHOW {name.decode()}") or "").encode() == value
        assert errors(wire.query_bytes(ParameterSet(wanted).sync_sql(EMPTY))) == []
        assert wire.value("SHOW search_path") == '"$user", public'


@pytest.mark.parametrize("encoding", ["LATIN1", "SJIS", "EUC_JP", "WIN1252"])
def test_sessions_of_different_encodings_share_a_backend(narrow: Ambassador, encoding: str) -> None:
    # Values were kept in the encoding of the session that had set them, and sent in that of whoever had the backend
    # before: the statement was refused, or worse, the quoting broke. Now what is kept and sent is ASCII.
    value = {"LATIN1": "é", "SJIS": "ソ表", "EUC_JP": "表", "WIN1252": "€"}[encoding]
    codec = {"SJIS": "shift_jis", "EUC_JP": "euc_jp", "LATIN1": "latin1", "WIN1252": "cp1252"}[encoding]
    password = narrow.servers[0].credentials.superuser
    with Wire(narrow.port).log_in(password) as one, Wire(narrow.port).log_in(password) as other:
        one.query(f"SET client_encoding = '{encoding}'")
        assert errors(one.query_bytes(f"SET search_path = '{value}', public".encode(codec))) == []
        for _ in range(3):
            assert other.value("SELECT 'ü'") == "ü"
            (row,) = [m for m in one.query("SHOW search_path") if m.type == ord("D")]
            assert messages.parse_data_row(row.payload) == [f'"{value}", public'.encode(codec)]
            assert other.value("SHOW search_path") == '"$user", public'
