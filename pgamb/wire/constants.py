"""The protocol's numbers, under the names of PostgreSQL's manual ("Message Formats").

Message types are `int`, as they arrive; several letters mean one thing from a frontend and another from a backend.
"""

from __future__ import annotations

from typing import Final

# Message types, from a frontend.
BIND: Final = 0x42  # B
CLOSE: Final = 0x43  # C
COPY_FAIL: Final = 0x66  # f
DESCRIBE: Final = 0x44  # D
EXECUTE: Final = 0x45  # E
FLUSH: Final = 0x48  # H
FUNCTION_CALL: Final = 0x46  # F
PARSE: Final = 0x50  # P
PASSWORD_MESSAGE: Final = 0x70  # p: also SASLInitialResponse, SASLResponse, GSSResponse
QUERY: Final = 0x51  # Q
SYNC: Final = 0x53  # S
TERMINATE: Final = 0x58  # X

# Message types, both ways.
COPY_DATA: Final = 0x64  # d
COPY_DONE: Final = 0x63  # c

# Message types, from a backend.
AUTHENTICATION: Final = 0x52  # R
BACKEND_KEY_DATA: Final = 0x4B  # K
BIND_COMPLETE: Final = 0x32  # 2
CLOSE_COMPLETE: Final = 0x33  # 3
COMMAND_COMPLETE: Final = 0x43  # C
COPY_BOTH_RESPONSE: Final = 0x57  # W
COPY_IN_RESPONSE: Final = 0x47  # G
COPY_OUT_RESPONSE: Final = 0x48  # H
DATA_ROW: Final = 0x44  # D
EMPTY_QUERY_RESPONSE: Final = 0x49  # I
ERROR_RESPONSE: Final = 0x45  # E
FUNCTION_CALL_RESPONSE: Final = 0x56  # V
NEGOTIATE_PROTOCOL_VERSION: Final = 0x76  # v
NO_DATA: Final = 0x6E  # n
NOTICE_RESPONSE: Final = 0x4E  # N
NOTIFICATION_RESPONSE: Final = 0x41  # A
PARAMETER_DESCRIPTION: Final = 0x74  # t
PARAMETER_STATUS: Final = 0x53  # S
PARSE_COMPLETE: Final = 0x31  # 1
PORTAL_SUSPENDED: Final = 0x73  # s
READY_FOR_QUERY: Final = 0x5A  # Z
ROW_DESCRIPTION: Final = 0x54  # T

# What Describe and Close name.
STATEMENT: Final = b"S"
PORTAL: Final = b"P"

# Transaction status of ReadyForQuery.
IDLE: Final = b"I"
IN_TRANSACTION: Final = b"T"
IN_FAILED_TRANSACTION: Final = b"E"

# Protocol versions. There is no 3.1: poolers in the field answered to that number, so PostgreSQL 18 went to 3.2.
PROTOCOL_MAJOR: Final = 3
NEWEST_MINOR: Final = 2
PROTOCOL_3_0: Final = 0x0003_0000
PROTOCOL_3_2: Final = 0x0003_0002

# Codes in the place of a version, in the first packet of a connection.
CANCEL_REQUEST_CODE: Final = 80877102
SSL_REQUEST_CODE: Final = 80877103
GSSENC_REQUEST_CODE: Final = 80877104

# AuthenticationXXX.
AUTH_OK: Final = 0
AUTH_KERBEROS_V5: Final = 2
AUTH_CLEARTEXT_PASSWORD: Final = 3
AUTH_MD5_PASSWORD: Final = 5
AUTH_GSS: Final = 7
AUTH_GSS_CONTINUE: Final = 8
AUTH_SSPI: Final = 9
AUTH_SASL: Final = 10
AUTH_SASL_CONTINUE: Final = 11
AUTH_SASL_FINAL: Final = 12

SCRAM_SHA_256: Final = "SCRAM-SHA-256"
SCRAM_SHA_256_PLUS: Final = "SCRAM-SHA-256-PLUS"

# Limits of PostgreSQL's: MAX_STARTUP_PACKET_LENGTH (without the length word), PG_MAX_AUTH_TOKEN_LENGTH,
# PQ_LARGE_MESSAGE_LIMIT (MaxAllocSize - 1), and the cancel keys of protocol 3.2 (in 3.0: exactly 4).
STARTUP_LIMIT_BYTES: Final = 10_000
PASSWORD_LIMIT_BYTES: Final = 65_535
MESSAGE_LIMIT_BYTES: Final = 0x3FFF_FFFE
CANCEL_KEY_MIN_BYTES: Final = 4
CANCEL_KEY_MAX_BYTES: Final = 256
