"""What options must hold together: each rule names the options it is about, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from pgamb.config.options import ClientOptions, RegistryOptions, ServerOptions
from pgamb.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that works, but probably not as it was meant."""

    message: str
    hint: str


def judge(options: msgspec.Struct) -> tuple[Oddity, ...]:
    """Raise ConfigError for what cannot work; give back what probably does not."""
    if isinstance(options, RegistryOptions):
        _judge_registry(options)
    if isinstance(options, ClientOptions):
        return _judge_client(options)
    if isinstance(options, ServerOptions):
        return _judge_server(options)
    return ()


def _judge_registry(options: RegistryOptions) -> None:
    _pair("--registry-cert", options.registry_cert, "--registry-key", options.registry_key)


def _judge_client(options: ClientOptions) -> tuple[Oddity, ...]:
    _pair("--tls-cert", options.tls_cert, "--tls-key", options.tls_key)
    _pair("--server-cert", options.server_cert, "--server-key", options.server_key)
    if options.tls_required and options.tls_cert is None:
        raise ConfigError("--tls-required needs a certificate", hint="give --tls-cert and --tls-key")
    if options.server_tls.startswith("verify-") and options.server_ca is None:
        raise ConfigError(
            f"--server-tls {options.server_tls} needs CA certificates to verify with",
            hint="give --server-ca FILE, or --server-tls require, which encrypts without verifying",
        )
    can_look_up = options.auth_dsn is not None or options.auth_file is not None
    if options.auth == "scram" and not can_look_up:
        raise ConfigError(
            "--auth scram needs the verifiers that passwords are checked against",
            hint="give --auth-dsn with a log-in that may read pg_authid, or --auth-file; or use --auth password",
        )
    remote = [str(address) for address in options.listen if not address.is_local]
    if options.auth == "trust" and remote and not options.trust_remote:
        raise ConfigError(
            f"--auth trust would let anyone in who reaches --listen {', '.join(remote)}",
            hint="listen on loopback or a unix socket only, choose another --auth, or say --trust-remote as well",
        )
    sends_password = options.auth == "password" or (options.auth == "auto" and not can_look_up)
    if remote and sends_password and options.tls_cert is None:
        return (
            Oddity(
                f"nobody can log in from another machine through --listen {', '.join(remote)}: "
                "a password is taken over loopback, a unix socket or TLS only",
                "give --auth-dsn (SCRAM needs no TLS), or --tls-cert and --tls-key",
            ),
        )
    return ()


def _judge_server(options: ServerOptions) -> tuple[Oddity, ...]:
    if options.registry.startswith("static://"):
        raise ConfigError(
            "--registry static:// has nothing to announce to",
            hint="an agent needs etcd://HOST:2379; with static:// `pgamb client` asks the servers itself",
        )
    if options.registry.startswith("patroni+"):
        raise ConfigError(
            "--registry patroni+etcd:// is Patroni's own registry: it needs no agent",
            hint="run `pgamb server` with etcd://HOST:2379 only",
        )
    if options.probe_interval_s >= options.ttl_s:
        raise ConfigError(
            f"--probe-interval {options.probe_interval_s:g} is not shorter than --ttl {options.ttl_s}",
            hint="its registration would end between two probes: raise --ttl, or lower --probe-interval",
        )
    return ()


def _pair(first: str, first_value: str | None, second: str, second_value: str | None) -> None:
    if (first_value is None) != (second_value is None):
        given, missing = (first, second) if second_value is None else (second, first)
        raise ConfigError(f"{given} is given without {missing}", hint=f"give {missing} too: they belong together")
