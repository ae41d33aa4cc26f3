"""What a direct question to another member brings home."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgamb.server.decide import PeerState
from pgamb.server.peers import judge
from pgamb.server.reading import Probe, Reading, Unreachable

OWN = Reading(False, 2, "7", 150004, 1000.0, cluster_name="pg1")
OTHER = replace(OWN, started_at_s=2000.0)


@pytest.mark.parametrize(
    ("probe", "state"),
    [
        (OWN, PeerState.OURSELVES),
        (OTHER, PeerState.PRIMARY),
        (replace(OWN, cluster_name="pg2"), PeerState.PRIMARY),
        (replace(OTHER, in_recovery=True), PeerState.REPLICA),
        (replace(OTHER, system_identifier="8"), PeerState.SILENT),
        (Unreachable("refused", is_gone=True, is_silent=True), PeerState.SILENT),
        (Unreachable("no answer", is_gone=False, is_silent=True), PeerState.SILENT),
        (Unreachable("the database system is starting up", is_gone=True), PeerState.UNCLEAR),
        (Unreachable("password authentication failed", is_gone=False), PeerState.UNCLEAR),
    ],
)
def test_an_answer_is_judged(probe: Probe, state: PeerState) -> None:
    assert judge(probe, OWN).state is state


def test_the_timeline_comes_with_the_answer() -> None:
    assert judge(replace(OTHER, timeline=5), OWN).timeline == 5
