"""Asks another member directly: with our own log-in, at the address that it was announced with."""

from __future__ import annotations

from pgamb.registry.model import Member
from pgamb.server.decide import PeerAnswer, PeerState
from pgamb.server.probe import Prober
from pgamb.server.reading import Probe, Reading
from pgamb.server.target import Target


class PeerProber:
    """Asks each address of a member in turn, on a connection for this one question.

    One address that is unclear outweighs others that are silent.
    """

    def __init__(self, target: Target, *, timeout_s: float = 1.0) -> None:
        self._target = target
        self._timeout_s = timeout_s

    async def ask(self, member: Member, own: Reading) -> PeerAnswer:
        """Return what the first address that gives a clear answer says; `own` is what our own server is."""
        answers = []
        for address in member.addresses:
            prober = Prober(self._target.at(address), timeout_s=self._timeout_s)
            try:
                answer = judge(await prober.probe(), own)
            finally:
                prober.close()
            if answer.state in (PeerState.PRIMARY, PeerState.REPLICA, PeerState.OURSELVES):
                return answer
            answers.append(answer)
        unclear = [answer for answer in answers if answer.state is PeerState.UNCLEAR]
        return next(iter(unclear or answers), PeerAnswer(PeerState.UNCLEAR, reason="it has no address"))


def judge(probe: Probe, own: Reading) -> PeerAnswer:
    """Make an answer of what a probe of another member's address brought home.

    A server of another cluster is not the member that was there: nobody serves that member any more.
    """
    if not isinstance(probe, Reading):
        return PeerAnswer(PeerState.SILENT if probe.is_silent else PeerState.UNCLEAR, reason=probe.reason)
    if probe.system_identifier != own.system_identifier:
        return PeerAnswer(PeerState.SILENT, reason="a server of another cluster answers there")
    if probe.started_at_s == own.started_at_s and probe.cluster_name == own.cluster_name:
        return PeerAnswer(PeerState.OURSELVES, probe.timeline)
    return PeerAnswer(PeerState.REPLICA if probe.in_recovery else PeerState.PRIMARY, probe.timeline)
