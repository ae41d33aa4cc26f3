"""The words that an option takes of which only a few are known."""

from __future__ import annotations

from typing import Literal, TypeAlias

Auth: TypeAlias = Literal["auto", "scram", "password", "trust"]
PoolMode: TypeAlias = Literal["transaction", "session"]
Consistency: TypeAlias = Literal["eventual", "session", "ambassador"]
Transactions: TypeAlias = Literal["lazy", "exact"]
SslMode: TypeAlias = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

AUTH_WORDS = ("auto", "scram", "password", "trust")
POOL_MODES = ("transaction", "session")
CONSISTENCIES = ("eventual", "session", "ambassador")
TRANSACTIONS = ("lazy", "exact")
ON_REGISTRY_LOSS = ("failsafe", "serve", "fence")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
