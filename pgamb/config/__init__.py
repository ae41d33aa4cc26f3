"""Configuration: frozen options with their defaults; flags over environment over TOML file over defaults.

`options` says what there is, `table` what each is called; `load` reads it, `rules` judges it, `document` writes
the page.
"""

from pgamb.config.choices import Auth, LogFormat, LogLevel, PoolMode, SslMode
from pgamb.config.listen import BindTarget, ListenAddress, TcpTarget, UnixTarget, bind_error
from pgamb.config.load import Loaded, load
from pgamb.config.options import (
    ClientOptions,
    DrainOptions,
    ExplainOptions,
    ProcessOptions,
    RegistryOptions,
    ServerOptions,
    StatusOptions,
)

__all__ = [
    "Auth",
    "BindTarget",
    "ClientOptions",
    "DrainOptions",
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
