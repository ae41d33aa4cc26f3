"""What a query does, as far as its text can prove it: the functions it calls, its operators, relations and locks.

Nothing here parses. `examine` looks for everything that could make a query more than a read; what it does not know
counts against the query. What the text does not show (a view over a volatile function, a cast, a domain or an overload
of a built-in name that a user has defined) is what the catalogue is asked for: its hazards.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from pgamb.routing.catalog import NOT_HARMLESS, Catalog, Effect
from pgamb.routing.functions import OPERATORS
from pgamb.routing.intent import NO_NEED, NO_PIN, Intent, Need, Pin
from pgamb.routing.lexer import JUNK, identifier
from pgamb.routing.parentheses import find_column_lists, is_name, is_syntax
from pgamb.routing.scanner import NOTE_NAME, NOTE_OPERATOR, NOTE_TIME
from pgamb.routing.transaction_time import TIME_KEYWORDS, TIME_VIEWS, looks_at_transaction_time


class Level(enum.IntEnum):
    """How far a query is from being a read; the strongest finding decides."""

    READ = 0
    PRIMARY = 1
    WRITES = 2
    UNKNOWN = 3


@dataclass(slots=True)
class Finding:
    """What has been found in one query so far."""

    level: Level = Level.READ
    reason: str = ""
    need: Need = NO_NEED
    pins: Pin = NO_PIN
    unpins: Pin = NO_PIN
    called: list[str] = field(default_factory=list)
    hazardous: bool = False

    def raise_to(self, level: Level, reason: str) -> None:
        """Keep the strongest level, and the first reason for it."""
        if level > self.level:
            self.level = level
            self.reason = reason

    def intent(self, command: str) -> Intent:
        """Make the intent of a command whose query this is."""
        # Operations on flags are slow, so those of the ordinary read are left out.
        if self.level is Level.READ:
            need = self.need | Need.READ if self.need else Need.READ
            functions = ", ".join(dict.fromkeys(self.called))
            reason = f"{command} with harmless functions only: {functions}" if functions else f"{command}, no functions"
            return Intent(need, NO_PIN, NO_PIN, reason)
        need = self.need | Need.NEUTRAL if self.level is Level.PRIMARY else self.need
        return Intent(need, self.pins, self.unpins, self.reason)


_WRITE_KEYWORDS = frozenset(b"insert update delete merge into".split())
_SUSPECTS = _WRITE_KEYWORDS | {b"for", b"operator", JUNK}
_LOCK_STRENGTHS = frozenset(b"update share no key".split())

_OPERATOR_STARTS = frozenset(b"~!@#^&|`?+-*/%<>=")
# != is <>, and => names an argument.
_KNOWN_OPERATORS = OPERATORS | {b"!=", b"=>"}
_OPERATORS_OR_NOTHING = _KNOWN_OPERATORS | {b""}
_STICKY_OPERATOR = re.compile(rb"[~!@#%^&|`?]")

_SERVER_VIEWS = frozenset(
    b"""
    pg_aios pg_backend_memory_contexts pg_config pg_cursors pg_file_settings pg_hba_file_rules pg_ident_file_mappings
    pg_locks pg_prepared_statements pg_prepared_xacts pg_replication_origin_status pg_replication_slots pg_sequences
    pg_settings pg_shmem_allocations pg_shmem_allocations_numa pg_subscription_rel pg_buffercache pg_buffercache_pages
    """.split()
)
# A replica's sequences run ahead of the primary's: these columns only sequences have.
_SEQUENCE_COLUMNS = frozenset(b"is_called log_cnt last_value".split())

_NOTABLE_NAMES = _SERVER_VIEWS | _SEQUENCE_COLUMNS | TIME_VIEWS | NOT_HARMLESS

_SLEEPS = frozenset(
    f"{schema}{name}" for name in ("pg_sleep", "pg_sleep_for", "pg_sleep_until") for schema in ("", "pg_catalog.")
)
_BEFORE_RELATIONS = frozenset(b"from join table".split())

# Parameters that tell which server one is on. current_setting() and SHOW of them are asked of the primary.
SERVER_PARAMETERS = frozenset(
    b"""
    all transaction_read_only transaction_isolation transaction_deferrable in_hot_standby archive_mode
    config_file data_directory external_pid_file hba_file hot_standby ident_file listen_addresses max_connections port
    primary_conninfo primary_slot_name promote_trigger_file recovery_min_apply_delay recovery_target_timeline
    restore_command synchronous_standby_names unix_socket_directories wal_level
    """.decode().split()
)


def examine(tokens: Sequence[bytes], words: list[bytes], notes: int, catalog: Catalog) -> Finding:
    """Find out what running a query does.

    `words` are the tokens in lower case, and `notes` those of a text that contains all of them.
    """
    finding = Finding()
    distinct = set(words)
    if not distinct.isdisjoint(_SUSPECTS):
        _examine_keywords(words, distinct, catalog, finding)
        distinct.discard(JUNK)
    if catalog.is_suspicious(distinct):
        for hazard in catalog.hazards(tokens, words):
            finding.hazardous = True
            _note_effect(hazard.effect, "", (), finding, hazard.reason)
    if notes & NOTE_OPERATOR:
        _examine_operators(distinct, catalog, finding)
    if notes & NOTE_NAME and any(map(_is_notable, distinct)):
        _examine_names(tokens, words, catalog, finding)
    if not distinct.isdisjoint(TIME_KEYWORDS) or (notes & NOTE_TIME and looks_at_transaction_time(words, distinct)):
        finding.need |= Need.TRANSACTION_TIME
    examine_calls(tokens, words, catalog, finding)
    if finding.called and not _SLEEPS.isdisjoint(finding.called) and not _reads_a_relation(words):
        # No replica is spared anything, and who waits for it looks for it in the primary's pg_stat_activity.
        finding.raise_to(Level.PRIMARY, "sleeps, and reads no table")
    return finding


def _reads_a_relation(words: list[bytes]) -> bool:
    """Tell whether a FROM or JOIN names a table, or something in parentheses, rather than call a function."""
    return any(
        word in _BEFORE_RELATIONS and not (is_name(words[index + 1]) and words[index + 2 : index + 3] == [b"("])
        for index, word in enumerate(words[:-1])
    )


def _examine_keywords(words: list[bytes], distinct: set[bytes], catalog: Catalog, finding: Finding) -> None:
    if JUNK in distinct:
        finding.raise_to(Level.UNKNOWN, "cannot be read: something in it is not SQL")
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else b""
        if word == b"for":
            if following in _LOCK_STRENGTHS:
                finding.raise_to(Level.WRITES, f"locks rows: FOR {following.decode().upper()}")
        elif word in _WRITE_KEYWORDS:
            finding.raise_to(Level.WRITES, f"contains {word.decode().upper()}")
            if word == b"into" and any(b"temp" in later for later in words[index + 1 : index + 6]):
                finding.pins |= Pin.TEMPORARY
        elif word == b"operator" and following == b"(":
            _examine_qualified_operator(words[index + 2 : index + 6], catalog, finding)


def _examine_qualified_operator(words: list[bytes], catalog: Catalog, finding: Finding) -> None:
    known: Set[bytes] = _KNOWN_OPERATORS
    if words[1:2] == [b"."]:
        known = known if words[0] == b"pg_catalog" else catalog.operators
        words = words[2:]
    if len(words) < 2 or words[1] != b")" or (words[0] not in known and words[0] not in catalog.operators):
        finding.raise_to(Level.UNKNOWN, "an operator is not one of PostgreSQL's own")
        finding.need |= Need.SETTINGS


def _examine_operators(distinct: set[bytes], catalog: Catalog, finding: Finding) -> None:
    for word in distinct:
        if word[0] in _OPERATOR_STARTS and word not in _KNOWN_OPERATORS and word not in catalog.operators:
            # "=-1" is "=" and "-": only an operator with one of these characters may end in a sign.
            unsigned = word.rstrip(b"+-")
            if not _STICKY_OPERATOR.search(word) and (
                unsigned in _OPERATORS_OR_NOTHING or unsigned in catalog.operators
            ):
                continue
            finding.raise_to(Level.UNKNOWN, f"operator {word.decode()} is not one of PostgreSQL's own")
            finding.need |= Need.SETTINGS


def _is_notable(word: bytes) -> bool:
    """Tell whether a name, or the last part of one, may be one of those that `_examine_names` looks for."""
    name = word.rpartition(b".")[2] if word[-1:] != b'"' else word[1:-1]
    return name in _NOTABLE_NAMES or name[:7] == b"pg_stat" or word[:3] == b'u&"'


def _examine_names(tokens: Sequence[bytes], words: list[bytes], catalog: Catalog, finding: Finding) -> None:
    for index, word in enumerate(words):
        if word[:3] == b'u&"':
            finding.raise_to(Level.UNKNOWN, 'a name is written as U&"..."')
            finding.need |= Need.SETTINGS
            continue
        if words[index + 1 : index + 2] == [b"("]:
            continue
        qualifier, _, name = word.rpartition(b".") if word[:1] != b'"' else (b"", b"", tokens[index][1:-1])
        if name in _SERVER_VIEWS or name.startswith((b"pg_stat_", b"pg_statio_")):
            finding.raise_to(Level.PRIMARY, f"{name.decode(errors='replace')} tells of one server: the primary's")
        elif name in _SEQUENCE_COLUMNS:
            finding.raise_to(Level.PRIMARY, f"{name.decode()} looks like a sequence's column")
        elif name in TIME_VIEWS:
            finding.need |= Need.TRANSACTION_TIME
        elif qualifier or (index and words[index - 1] == b"."):
            # A value's attribute may be a function of it: ('seq'::regclass).nextval.
            function = name.decode(errors="replace")
            effect = catalog.function(None, function)
            if effect not in (Effect.HARMLESS, Effect.UNKNOWN):
                _note_effect(effect, function, [], finding, "")


def examine_calls(tokens: Sequence[bytes], words: list[bytes], catalog: Catalog, finding: Finding) -> None:
    """Find out what the functions called in a statement do."""
    harmless = catalog.harmless
    column_lists: set[int] | None = None
    index = 0
    for _ in range(words.count(b"(")):
        index = words.index(b"(", index) + 1
        previous = words[index - 2] if index > 1 else b""
        before = words[index - 3] if index > 2 else b""
        if before != b".":
            if previous in harmless:
                finding.called.append(previous.decode())
                continue
            if is_syntax(words, index - 1):
                continue
        if not is_name(previous):
            continue
        schema, name = _called(tokens, index - 1)
        effect = Effect.UNKNOWN if name is None else catalog.function(schema, name)
        if effect is Effect.TRANSACTION_TIME and name == "age" and _has_two_arguments(words, index):
            effect = Effect.HARMLESS
        if effect is Effect.UNKNOWN:
            if column_lists is None:
                column_lists = find_column_lists(words)
            if index - 1 in column_lists:
                continue
        why = "" if effect is Effect.HARMLESS or name is None else catalog.evidence(schema, name)
        called = name if schema is None else f"{schema}.{name}"
        _note_effect(effect, called, tokens[index : index + 4], finding, why)


def _has_two_arguments(words: list[bytes], index: int) -> bool:
    """Tell whether there is a comma in the parentheses whose content begins here."""
    depth = 0
    for word in words[index:]:
        if word in (b"(", b"["):
            depth += 1
        elif word in (b")", b"]"):
            depth -= 1
            if depth < 0:
                break
        elif word == b"," and depth == 0:
            return True
    return False


def _called(tokens: Sequence[bytes], parenthesis: int) -> tuple[str | None, str | None]:
    """Give schema and name of what stands in front of a parenthesis; no name if they cannot be told."""
    parts = [tokens[parenthesis - 1]]
    index = parenthesis - 2
    while index > 0 and tokens[index] == b".":
        parts = [tokens[index - 1], *parts]
        index -= 2
    names = [identifier(part) for token in parts for part in (token.split(b".") if token[-1:] != b'"' else [token])]
    if len(names) > 2:
        return ".".join(name or "?" for name in names[:-1]), names[-1]
    return (names[0] or "?", names[1]) if len(names) == 2 else (None, names[0])


def _note_effect(effect: Effect, name: str | None, arguments: Sequence[bytes], finding: Finding, why: str) -> None:
    """Note what a call does, or (without a name) a hazard; `why` replaces the reason that the effect has by itself."""
    if effect is Effect.ASKS_SETTING:
        effect = _effect_of_current_setting(arguments)
    match effect:
        case Effect.HARMLESS | Effect.TRANSACTION_TIME:
            if name != "":
                finding.called.append(name or "?")
            if effect is Effect.TRANSACTION_TIME:
                finding.need |= Need.TRANSACTION_TIME
        case Effect.PRIMARY | Effect.ASKS_SETTING:
            finding.raise_to(Level.PRIMARY, why or f"{name}() is asked of the primary")
        case Effect.SEQUENCE:
            finding.raise_to(Level.PRIMARY, why or f"{name}() tells what this session got from a sequence")
            finding.need |= Need.SEQUENCE
        case Effect.ADVISORY_LOCK:
            finding.raise_to(Level.PRIMARY, why or f"{name}() takes a lock that the session keeps")
            finding.pins |= Pin.ADVISORY_LOCK
        case Effect.ADVISORY_UNLOCK:
            finding.raise_to(Level.PRIMARY, why or f"{name}() gives up a lock of the session's")
            finding.unpins |= Pin.ADVISORY_LOCK
        case Effect.SETTING:
            finding.raise_to(Level.PRIMARY, why or f"{name}() changes a parameter")
            finding.need |= Need.SETTINGS
        case Effect.SEED:
            finding.raise_to(Level.PRIMARY, why or f"{name}() leaves its seed in the backend")
            finding.pins |= Pin.OTHER
        case Effect.WRITES:
            finding.raise_to(Level.WRITES, why or f"function {name} is volatile")
        case Effect.WRITES_AND_STAYS:
            finding.raise_to(Level.WRITES, f"function {name} leaves its state in the backend")
            finding.pins |= Pin.OTHER
        case Effect.UNKNOWN:
            finding.raise_to(Level.UNKNOWN, why or f"function {name} is not known to be free of side effects")
            finding.need |= Need.SETTINGS


def _effect_of_current_setting(arguments: Sequence[bytes]) -> Effect:
    literal = arguments[0] if arguments else b""
    # As PostgreSQL prints it in a definition: 'name'::text.
    behind = arguments[3:4] if arguments[1:3] == [b"::", b"text"] else arguments[1:2]
    # One literal, not several that a line break joins.
    plain = literal[:1] == b"'" and literal.count(b"'") == 2 and behind in ([b")"], [b","])
    if plain and literal[1:-1].decode(errors="replace").lower() not in SERVER_PARAMETERS:
        return Effect.HARMLESS
    return Effect.PRIMARY
