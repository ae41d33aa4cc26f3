"""Configuration: frozen options with their defaults; flags over environment over TOML file over defaults.

`options` says what there is, `table` what each is called; `load` reads it, `rules` judges it, `document` writes
the page.
"""

from pgamb.config.listen import BindTarget, ListenAddress, TcpTarget, UnixTarget, bind_error
from pgamb.config.load import Loaded, load
from pgamb.config.options import (
    Auth,
    ClientOptions,
    ExplainOptions,
    LogFormat,
    LogLevel,
    PoolMode,
    ProcessOptions,
    RegistryOptions,
    ServerOptions,
    SslMode,
    StatusOptions,
)

__all__ = [
    "Auth",
    "BindTarget",
    "ClientOptions",
    "ExplainOptions",
    "ListenAddress",
    "Loaded",
    "LogFormat",
    "LogLevel",
    "PoolMode",
    "ProcessOptions",
    "RegistryOptions",
    "ServerOptions",
    "SslMode",
    "StatusOptions",
    "TcpTarget",
    "UnixTarget",
    "bind_error",
    "load",
]
