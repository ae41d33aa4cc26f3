"""One real etcd node, or a cluster of them, as processes of ours."""

from __future__ import annotations

import base64
import http.client
import json
import os
import platform
import shutil
import signal
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgamb.demo.binaries import EtcdBinary
from pgamb.demo.ports import free_port
from pgamb.demo.process import ChildProcess
from pgamb.errors import ProcessFailed

HOST = "127.0.0.1"
# Three nodes were healthy after 2.3 s on an idle machine.
START_DEADLINE_S = 60.0
CALL_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """PEM files: what an etcd shows to its clients, and, with `require_client`, asks of them."""

    cert: Path
    key: Path
    ca: Path
    require_client: bool = True


class EtcdServer:
    """One etcd node; alone unless `peers` (node name -> peer port, itself included) says otherwise."""

    def __init__(
        self,
        name: str,
        *,
        binary: EtcdBinary,
        folder: Path,
        log: Path | None = None,
        port: int | None = None,
        peers: Mapping[str, int] | None = None,
        tls: EtcdTls | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.port = port or free_port()
        self.tls = tls
        self._folder = folder
        self._data = folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        peers = dict(peers) if peers else {name: free_port()}
        url = f"{self._scheme}://{HOST}:{self.port}"
        argv: list[str | Path] = [binary.path, "--name", name, "--data-dir", self._data]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url]
        peer_url = f"http://{HOST}:{peers[name]}"
        argv += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
        members = ",".join(f"{peer}=http://{HOST}:{port}" for peer, port in peers.items())
        argv += ["--initial-cluster", members, "--initial-cluster-state", "new"]
        # Two clusters on one machine must never take each other for their own.
        argv += ["--initial-cluster-token", f"pgamb-{min(peers.values())}", "--log-level", "warn"]
        if _newer(binary.version, (3, 5)):  # unknown to 3.4; a demo's data need not survive a power cut
            argv += ["--unsafe-no-fsync"]
        if tls is not None:
            argv += ["--cert-file", tls.cert, "--key-file", tls.key]
            if tls.require_client:
                argv += ["--trusted-ca-file", tls.ca, "--client-cert-auth"]
        argv += options
        # Variables of an etcd that this machine may really have must not reach ours.
        env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        if platform.machine() not in ("x86_64", "AMD64"):
            env["ETCD_UNSUPPORTED_ARCH"] = "arm64" if platform.machine() == "aarch64" else platform.machine()
        self.process = ChildProcess(f"etcd {name}", argv, log=log or folder / "etcd.log", env=env)

    @property
    def _scheme(self) -> str:
        return "https" if self.tls else "http"

    @property
    def endpoint(self) -> str:
        """Where clients reach it, as `host:port`."""
        return f"{HOST}:{self.port}"

    def start(self, wait: bool = True) -> None:
        """Start it, and unless told otherwise wait until it has a leader. Raises ProcessFailed with its log's end."""
        self.process.start()
        if wait:
            self.wait_ready()

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until it answers that it is healthy (which needs a quorum)."""
        self.process.wait_until(self.healthy, deadline_s, "while waiting for it to be healthy")

    def healthy(self) -> bool:
        """Say whether it answers, and has a leader."""
        try:
            return self._call("GET", "/health").get("health") in ("true", True)
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def leads(self) -> bool:
        """Say whether it is the leader of its cluster."""
        try:
            status = self._call("POST", "/v3/maintenance/status", {})
        except (OSError, http.client.HTTPException, ValueError):
            return False
        header = status["header"]
        return isinstance(header, dict) and status.get("leader") == header.get("member_id")

    def get_prefix(self, prefix: str) -> dict[str, bytes]:
        """Return all keys below `prefix`, through etcd's JSON gateway. Raises ProcessFailed when it does not answer."""
        start = prefix.encode()
        end = start[:-1] + bytes([start[-1] + 1])
        body = {"key": base64.b64encode(start).decode(), "range_end": base64.b64encode(end).decode()}
        try:
            answer = self._call("POST", "/v3/kv/range", body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ProcessFailed(f"{self.process.name} does not answer: {error}") from error
        pairs: list[dict[str, str]] = answer.get("kvs", [])  # type: ignore[assignment]
        return {base64.b64decode(kv["key"]).decode(): base64.b64decode(kv.get("value", "")) for kv in pairs}

    def stop(self) -> None:
        self.process.stop(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def wipe(self) -> None:
        """Forget everything: a new, empty store at the same address. Only for a node that is stopped."""
        if self.process.running:
            raise ProcessFailed(f"{self.process.name} still runs: stop it before it is wiped")
        shutil.rmtree(self._data, ignore_errors=True)

    def _call(self, method: str, path: str, body: object = None) -> dict[str, object]:
        # http.client and not urllib: it knows nothing of the proxies that the environment may name.
        connection: http.client.HTTPConnection
        if self.tls is None:
            connection = http.client.HTTPConnection(HOST, self.port, timeout=CALL_TIMEOUT_S)
        else:
            context = ssl.create_default_context(cafile=str(self.tls.ca))
            context.load_cert_chain(self.tls.cert, self.tls.key)
            context.check_hostname = False
            connection = http.client.HTTPSConnection(HOST, self.port, timeout=CALL_TIMEOUT_S, context=context)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise ValueError(f"etcd answered {answer!r}")
        return answer


class EtcdCluster:
    """One node or three, which find each other."""

    def __init__(
        self, *, binary: EtcdBinary, folder: Path, nodes: int = 1, logs: Path | None = None, tls: EtcdTls | None = None
    ) -> None:
        names = ["etcd"] if nodes == 1 else [f"etcd{number}" for number in range(1, nodes + 1)]
        peers = {name: free_port() for name in names}
        self.servers = [
            EtcdServer(
                name,
                binary=binary,
                folder=folder / name,
                log=logs / f"{name}.log" if logs else None,
                peers=peers,
                tls=tls,
            )
            for name in names
        ]

    @property
    def endpoints(self) -> list[str]:
        return [server.endpoint for server in self.servers]

    @property
    def registry_url(self) -> str:
        """What `--registry` wants."""
        return "etcd://" + ",".join(self.endpoints)

    def start(self, wait: bool = True) -> None:
        """Start every node, then wait for all: none is healthy before most are there."""
        for server in self.servers:
            server.start(wait=False)
        if wait:
            self.wait_ready()

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        for server in self.servers:
            server.wait_ready(deadline_s)

    def stop(self) -> None:
        for server in self.servers:
            server.process.resume()
            server.process.send(signal.SIGTERM)
        for server in self.servers:
            server.stop()

    def wipe(self) -> None:
        for server in self.servers:
            server.wipe()

    def get_prefix(self, prefix: str) -> dict[str, bytes]:
        """Return all keys below `prefix`, from a node that answers. Raises ProcessFailed when none does."""
        failure: ProcessFailed | None = None
        for server in self.servers:
            try:
                return server.get_prefix(prefix)
            except ProcessFailed as error:
                failure = error
        assert failure is not None
        raise failure


def _newer(version: str, than: tuple[int, int]) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= than
