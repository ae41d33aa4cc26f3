"""Conversations that break the protocol, or end it; PostgreSQL has an answer to each."""

from __future__ import annotations

from pgamb.wire.messages import query, sync
from tests.support.conversations import COPY_DONE, Step, copy_data, message

MALFORMED: dict[str, tuple[Step, ...]] = {
    "malformed": (
        Step(message("Q", b"SELECT 1")),
        Step(message("Q")),
        Step(message("Q", b"SELECT 1\0more\0")),
        Step(message("P", b"x") + sync()),
        Step(message("P", b"x\0SELECT 1") + sync()),
        Step(message("P", b"x\0SELECT 1\0") + sync()),
        Step(message("P", b"x\0SELECT 1\0\0\1") + sync()),
        Step(message("P") + sync()),
        Step(message("B") + sync()),
        Step(message("B", b"\0") + sync()),
        Step(message("B", b"\0\0") + sync()),
        Step(message("B", b"\0\0\0\1") + sync()),
        Step(message("B", b"\0nothing") + sync()),
        Step(message("D") + sync()),
        Step(message("D", b"X\0") + sync()),
        Step(message("D", b"S") + sync()),
        Step(message("D", b"Sabc") + sync()),
        Step(message("E") + sync()),
        Step(message("E", b"abc") + sync()),
        Step(message("E", b"\0\0") + sync()),
        Step(message("C") + sync()),
        Step(message("C", b"X\0") + sync()),
        Step(message("C", b"Sabc") + sync()),
        Step(message("C", b"S\0x") + sync()),
        Step(message("C", b"Sabc\0x") + sync()),
        Step(message("S", b"x")),
        Step(message("H", b"x") + sync()),
        Step(message("F") + sync(), "ZZ"),
        Step(query("SELECT 1")),
    ),
    "copy ended by something else": (
        Step(query("COPY talk FROM STDIN"), "G"),
        Step(copy_data(b"91\ta\n") + message("S") + message("H") + COPY_DONE),
        Step(query("COPY talk FROM STDIN"), "G"),
        Step(copy_data(b"91\ta\n") + query("SELECT 1"), "."),
    ),
    "password after log-in": (Step(query("SELECT 1")), Step(message("p", b"x\0"), ".")),
    "unknown type": (Step(query("SELECT 1")), Step(message("?", b"x\0"), ".")),
    "zero type": (Step(message("\0"), "."),),
    "terminate": (Step(query("SELECT 1")), Step(message("X"), ".")),
}
