"""Calls to a cluster of etcd servers: one channel for each endpoint, our own rotation, log-in, deadlines.

gRPC could balance over all endpoints by itself; one channel each keeps host names and IPv6 addresses as they are,
checks each server's certificate against its own name, and lets us leave a member that answers but has no leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from pgamb.errors import ConfigError, RegistryError, RegistryUnavailable
from pgamb.registry.etcd.faults import Fault, classify, translate
from pgamb.registry.etcd.messages import MESSAGES, METHODS
from pgamb.registry.etcd.security import Credentials, Tls

log = logging.getLogger(__name__)

# Each of these was seen to matter; docs/decisions/0001-etcd-client.md has what happened without it.
CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.use_local_subchannel_pool", 1),  # else back-off is shared between channels to one address
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2000),  # this one is the time allowed to connect
    ("grpc.max_reconnect_backoff_ms", 2000),  # 120 s otherwise
    ("grpc.enable_http_proxy", 0),  # else loopback calls go to a proxy
    ("grpc.keepalive_time_ms", 6000),  # below 5000 etcd closes the connection: too_many_pings
    ("grpc.http2.ping_timeout_ms", 2000),  # this, not keepalive_timeout_ms, notices a hung server
    ("grpc.max_receive_message_length", -1),
)

# A member that is cut off from its leader then fails calls and watches instead of being silent for ever.
_HAS_LEADER: Final = ("hasleader", "true")


class Connection:
    """Sends calls to whichever of `endpoints` ("host:port") answers, starting with the one that did last.

    `call_timeout_s` bounds each attempt; a call tries each endpoint at most once, and once more after a new log-in.
    """

    def __init__(
        self,
        endpoints: tuple[str, ...],
        *,
        credentials: Credentials | None = None,
        tls: Tls | None = None,
        call_timeout_s: float = 2.0,
    ) -> None:
        if not endpoints:
            raise ConfigError("no etcd endpoint is given", hint="Write etcd://host:2379,host2:2379.")
        self._endpoints = endpoints
        self._current = 0
        self._credentials = credentials
        self._channel_credentials = None if tls is None else channel_credentials(tls)
        self.call_timeout_s = call_timeout_s
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._token: str | None = None
        self._logged_in = credentials is None
        self.answered: str | None = None

    @property
    def endpoint(self) -> str:
        return self._endpoints[self._current]

    async def call(self, method: str, request: Any, *, retry: bool = True) -> Any:
        """Send one request, return the response; `retry=False` asks one endpoint only, for what must not run twice.

        Raises RegistryUnavailable when no endpoint answers, LeaseGone, or RegistryError when etcd refuses.
        """
        attempts = len(self._endpoints) if retry else 1
        renewed = False
        while True:
            endpoint = self.endpoint
            try:
                response = await self._attempt(method, request)
            except grpc.aio.AioRpcError as error:
                text = error.details() or error.code().name
                fault = classify(error.code(), text)
                refusal = translate(fault, text, endpoint, self._user)
                # A refused token means that nothing was done: repeating is safe for transactions too. A denial may be
                # a token from before a change of rights, so that is tried once more as well.
                if fault in (Fault.TOKEN, Fault.DENIED) and self._credentials is not None and not renewed:
                    renewed, self._logged_in = True, False
                    continue
                if fault is not Fault.ELSEWHERE:
                    raise refusal from error
                self.rotate(endpoint)
                attempts -= 1
                if attempts <= 0:
                    raise refusal from error
            else:
                self.answered = endpoint
                return response

    @asynccontextmanager
    async def stream(self, method: str, timeout_s: float | None = None) -> AsyncGenerator[Any, None]:
        """Open a two-way stream to the current endpoint; grpc.aio.AioRpcError comes out as RegistryError.

        After an error, the next stream goes to the next endpoint.
        """
        endpoint = self.endpoint
        call: Any = None
        try:
            await self._log_in()
            path, request, response = METHODS[method]
            open_stream = self._channel(endpoint).stream_stream(
                path,
                request_serializer=MESSAGES[request].SerializeToString,
                response_deserializer=MESSAGES[response].FromString,
            )
            call = open_stream(metadata=self._metadata(), timeout=timeout_s)
            yield call
        except grpc.aio.AioRpcError as error:
            raise self.stream_error(error.code(), error.details() or error.code().name, endpoint) from error
        except asyncio.InvalidStateError:
            # The stream had ended before we wrote; why, its status says.
            code, text = await call.code(), await call.details()
            raise self.stream_error(code, text or code.name, endpoint) from None
        except RegistryUnavailable:
            self.rotate(endpoint)
            raise
        finally:
            if call is not None:
                call.cancel()

    def stream_error(self, code: grpc.StatusCode | None, text: str, endpoint: str) -> RegistryError:
        """Say what a broken stream means, and act on it: rotate, or log in again before the next one."""
        fault = classify(code, text)
        if fault in (Fault.TOKEN, Fault.DENIED) and self._credentials is not None:
            self._logged_in = False
        if fault is Fault.ELSEWHERE:
            self.rotate(endpoint)
        return translate(fault, text, endpoint, self._user)

    def rotate(self, failed: str) -> None:
        """Go to the next endpoint, unless somebody else has left `failed` already."""
        if self.endpoint == failed:
            self._current = (self._current + 1) % len(self._endpoints)

    async def close(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def _attempt(self, method: str, request: Any) -> Any:
        await self._log_in()
        return await self._unary(method, request, self._metadata())

    async def _log_in(self) -> None:
        """Get a token if one is wanted. Tokens hold for the whole cluster; they expire when idle, and at a restart."""
        if self._logged_in or self._credentials is None:
            return
        request = MESSAGES["AuthenticateRequest"](name=self._credentials.user, password=self._credentials.password)
        endpoint = self.endpoint
        try:
            self._token = (await self._unary("authenticate", request, (_HAS_LEADER,))).token
        except grpc.aio.AioRpcError as error:
            text = error.details() or ""
            if "authentication is not enabled" in text:
                log.warning("etcd.auth-not-enabled", extra={"kv": {"endpoint": endpoint, "user": self._user}})
                self._token = None
            elif "authentication failed" in text:
                raise RegistryError(
                    f"etcd at {endpoint} refuses the password of user {self._user}",
                    hint="Check the user and the password in the registry URL.",
                ) from error
            else:
                raise
        self._logged_in = True

    async def _unary(self, method: str, request: Any, metadata: tuple[tuple[str, str], ...]) -> Any:
        path, request_type, response_type = METHODS[method]
        send = self._channel(self.endpoint).unary_unary(
            path,
            request_serializer=MESSAGES[request_type].SerializeToString,
            response_deserializer=MESSAGES[response_type].FromString,
        )
        return await send(request, timeout=self.call_timeout_s, metadata=metadata)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (_HAS_LEADER,) if self._token is None else (_HAS_LEADER, ("token", self._token))

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint)
        if channel is None:
            if self._channel_credentials is None:
                channel = grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
            else:
                channel = grpc.aio.secure_channel(endpoint, self._channel_credentials, options=CHANNEL_OPTIONS)
            self._channels[endpoint] = channel
        return channel

    @property
    def _user(self) -> str | None:
        return None if self._credentials is None else self._credentials.user


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Read the files of `tls`; raises ConfigError that names the one that is missing."""
    if (tls.cert_file is None) != (tls.key_file is None):
        raise ConfigError("a client certificate for etcd needs both cert and key", hint="Give ?cert=FILE&key=FILE.")
    return grpc.ssl_channel_credentials(
        _read("ca", tls.ca_file), _read("key", tls.key_file), _read("cert", tls.cert_file)
    )


def _read(option: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{option}={path} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise ConfigError(f"{option}={path} is not a PEM file", hint='A PEM file has a line "-----BEGIN ...-----".')
    return content
