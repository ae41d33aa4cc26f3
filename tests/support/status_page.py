"""The status page of an ambassador, as whoever watches it reads it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from pgamb.observe.snapshot import Snapshot
from tests.support.waiting import wait_for

DEADLINE_S = 30.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class Page:
    """The status page of an ambassador; `where` is a port, or the file of a unix socket."""

    where: int | str

    def request(self, path: str, method: str = "GET") -> tuple[int, Mapping[str, str], str]:
        connection = (
            UnixConnection(self.where)
            if isinstance(self.where, str)
            else http.client.HTTPConnection("127.0.0.1", self.where, timeout=DEADLINE_S)
        )
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, str]:
        status, _, text = self.request(path)
        return status, text

    def serves(self) -> bool:
        try:
            return self.get("/healthz") == (200, "ok\n")
        except OSError:
            return False

    def look(self) -> Snapshot:
        status, text = self.get("/status.json")
        assert status == 200, text
        return msgspec.json.decode(text, type=Snapshot)

    def metrics(self) -> dict[str, float]:
        """Read all series, named as in PromQL: `name{label="value"}`, with labels in order."""
        status, text = self.get("/metrics")
        assert status == 200, text
        series: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                key = f"{sample.name}{{{labels}}}" if labels else sample.name
                assert key not in series, f"{key} occurs twice"
                series[key] = sample.value
        return series

    def wait_ready(self, ready: bool) -> str:
        """Wait until /readyz says so; return its reason."""
        status = 200 if ready else 503
        reasons: list[str] = []

        def says_so() -> bool:
            answer, text = self.get("/readyz")
            reasons.append(text)
            return answer == status

        wait_for(says_so, DEADLINE_S, f"/readyz is {status}")
        return reasons[-1]
