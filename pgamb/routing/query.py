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

from pgamb.routing.catalog import Catalog, Effect
from pgamb.routing.functions import COLUMN_NAMES, OPERATORS, RESERVED, RESERVED_FUNCTION_NAMES
from pgamb.routing.intent import NO_NEED, NO_PIN, Intent, Need, Pin
from pgamb.routing.lexer import JUNK, identifier, is_literal, is_word


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
        return Intent(need, self.pins, self.unpins & ~self.pins, self.reason)


_WRITE_KEYWORDS = frozenset(b"insert update delete merge into".split())
_TIME_KEYWORDS = frozenset(b"current_timestamp current_date current_time localtime localtimestamp".split())
_SUSPECTS = _WRITE_KEYWORDS | _TIME_KEYWORDS | {b"for", b"operator", JUNK}
_LOCK_STRENGTHS = frozenset(b"update share no key".split())

_OPERATOR_STARTS = frozenset(b"~!@#^&|`?+-*/%<>=")
_OPERATOR_BYTES = frozenset(bytes([character]) for character in _OPERATOR_STARTS)
_NAME_STARTS = frozenset(bytes([character]) for character in range(256) if is_word(bytes([character])))
# != is <>, and => names an argument.
_KNOWN_OPERATORS = OPERATORS | {b"!=", b"=>"}
# Every other operator has one character, and is PostgreSQL's own.
_ODD_OPERATOR = re.compile(rb"[-+*/%^<>=~!@#&|`?](?:(?<=[~!@#&|`?])|[-+*/%^<>=])")
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
# Quick looks whether a closer one is worth while: they begin with what a search can skip to.
_NOTABLE_NAME = re.compile(rb"_(?:(?<=pg_)|called|cnt|value)")
_MAYBE_TIME = re.compile(rb"[wy](?<=now|day|row)")
_TIME_WORDS = re.compile(rb"\b(?:now|today|tomorrow|yesterday)\b")

# Parameters that tell which server one is on. current_setting() and SHOW of them are asked of the primary.
SERVER_PARAMETERS = frozenset(
    b"""
    all transaction_read_only transaction_isolation transaction_deferrable in_hot_standby archive_mode
    config_file data_directory external_pid_file hba_file hot_standby ident_file listen_addresses max_connections port
    primary_conninfo primary_slot_name promote_trigger_file recovery_min_apply_delay recovery_target_timeline
    restore_command synchronous_standby_names unix_socket_directories wal_level
    """.decode().split()
)

# Words in front of a parenthesis that are no function there, as long as one of these words is in front of them.
_CONTEXT = {
    b"over": frozenset([b")"]),
    b"filter": frozenset([b")"]),
    b"repeatable": frozenset([b")"]),
    b"by": frozenset(b"order group partition".split()),
    b"sets": frozenset([b"grouping"]),
    b"zone": frozenset([b"time"]),
    b"first": frozenset([b"fetch"]),
    b"next": frozenset([b"fetch"]),
    b"materialized": frozenset(b"as not".split()),
    b"varying": frozenset(b"character char bit nchar".split()),
    b"system": frozenset([b"tablesample"]),
    b"bernoulli": frozenset([b"tablesample"]),
    b"conflict": frozenset([b"on"]),
    b"insert": frozenset([b"then"]),
}
# Behind a name that follows one of these, a parenthesis holds column names or a type's modifiers.
_NO_CALL_BEHIND = frozenset([b"as", b"::", b"into"])
_GROUPINGS = frozenset(b"cube rollup".split())
_NEVER_CALLED = RESERVED | COLUMN_NAMES
_KEYWORDS = RESERVED | COLUMN_NAMES | RESERVED_FUNCTION_NAMES
# These join operands; where no operand can be in front of them, they are functions.
_INFIX = frozenset(b"join like ilike overlaps".split())
_NO_OPERAND_YET = frozenset(b"( , [ select where having and or on when then else case by limit offset distinct".split())
_EXPRESSION_FOLLOWS = frozenset(
    b"select values table where group having order window limit offset fetch union intersect except on using set "
    b"returning".split()
)


def examine(tokens: Sequence[bytes], words: list[bytes], text: bytes, catalog: Catalog) -> Finding:
    """Find out what running a query does.

    `words` are the tokens in lower case, and `text` any lower-case text that contains all of theirs.
    """
    finding = Finding()
    distinct = set(words)
    if not distinct.isdisjoint(_SUSPECTS):
        _examine_keywords(words, distinct, catalog, finding)
        distinct.discard(JUNK)
    if catalog.is_suspicious(distinct, text):
        for hazard in catalog.hazards(tokens, words):
            finding.hazardous = True
            _note_effect(hazard.effect, "", (), finding, hazard.reason)
    if _ODD_OPERATOR.search(text):
        _examine_operators(distinct, catalog, finding)
    if _NOTABLE_NAME.search(text) or b'u&"' in text:
        _examine_names(tokens, words, finding)
    if _MAYBE_TIME.search(text) and any(is_literal(word) and _TIME_WORDS.search(word) for word in distinct):
        finding.need |= Need.TRANSACTION_TIME
    examine_calls(tokens, words, catalog, finding)
    return finding


def _examine_keywords(words: list[bytes], distinct: set[bytes], catalog: Catalog, finding: Finding) -> None:
    if JUNK in distinct:
        finding.raise_to(Level.UNKNOWN, "cannot be read: something in it is not SQL")
    if not distinct.isdisjoint(_TIME_KEYWORDS):
        finding.need |= Need.TRANSACTION_TIME
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


def _examine_names(tokens: Sequence[bytes], words: list[bytes], finding: Finding) -> None:
    for index, word in enumerate(words):
        if word[:3] == b'u&"':
            finding.raise_to(Level.UNKNOWN, 'a name is written as U&"..."')
            finding.need |= Need.SETTINGS
            continue
        name = word.rpartition(b".")[2] if word[:1] != b'"' else tokens[index][1:-1]
        if name in _SERVER_VIEWS or name.startswith((b"pg_stat_", b"pg_statio_")):
            if words[index + 1 : index + 2] != [b"("]:
                finding.raise_to(Level.PRIMARY, f"{name.decode(errors='replace')} tells of one server: the primary's")
        elif name in _SEQUENCE_COLUMNS and words[index + 1 : index + 2] != [b"("]:
            finding.raise_to(Level.PRIMARY, f"{name.decode()} looks like a sequence's column")


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
            if previous in _NEVER_CALLED or before in _NO_CALL_BEHIND or before in _CONTEXT.get(previous, ()):
                continue
            if previous in _GROUPINGS and words[max(index - 4, 0) : index - 2] == [b"group", b"by"]:
                continue
            if previous == b"operator" or (previous == b"set" and b"update" in words):
                continue
        if not _is_name(previous):
            continue
        schema, name = _called(tokens, index - 1)
        effect = Effect.UNKNOWN if name is None else catalog.function(schema, name)
        if effect is Effect.UNKNOWN:
            if previous in _INFIX and before not in _NO_OPERAND_YET and before[:1] not in _OPERATOR_BYTES:
                continue
            if column_lists is None:
                column_lists = find_column_lists(words)
            if index - 1 in column_lists:
                continue
        why = "" if effect is Effect.HARMLESS or name is None else catalog.evidence(schema, name)
        called = name if schema is None else f"{schema}.{name}"
        _note_effect(effect, called, tokens[index : index + 4], finding, why)


def _is_name(word: bytes) -> bool:
    """Tell a word, a dotted name or a quoted identifier from literals and punctuation."""
    return word[-1:] == b'"' or (word[-1:] != b"'" and word[:1] in _NAME_STARTS)


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
        case Effect.ADVISORY_UNLOCK_ALL:
            finding.raise_to(Level.PRIMARY, why or f"{name}() gives up the session's locks")
            finding.unpins |= Pin.ADVISORY_LOCK
        case Effect.SETTING:
            finding.raise_to(Level.PRIMARY, why or f"{name}() changes a parameter")
            finding.need |= Need.SETTINGS
        case Effect.SEED:
            finding.raise_to(Level.PRIMARY, why or f"{name}() leaves its seed in the backend")
            finding.pins |= Pin.OTHER
        case Effect.WRITES:
            finding.raise_to(Level.WRITES, why or f"function {name} is volatile")
        case Effect.UNKNOWN:
            finding.raise_to(Level.UNKNOWN, why or f"function {name} is not known to be free of side effects")
            finding.need |= Need.SETTINGS


def _effect_of_current_setting(arguments: Sequence[bytes]) -> Effect:
    literal = arguments[0] if arguments else b""
    # As PostgreSQL prints it in a definition: 'name'::text.
    behind = arguments[3:4] if arguments[1:3] == [b"::", b"text"] else arguments[1:2]
    plain = literal[:1] == b"'" and literal[-1:] == b"'" and behind in ([b")"], [b","])
    if plain and literal[1:-1].decode(errors="replace").lower() not in SERVER_PARAMETERS:
        return Effect.HARMLESS
    return Effect.PRIMARY


def find_column_lists(words: list[bytes]) -> set[int]:
    """Find the parentheses behind a name that hold column names or type modifiers, not arguments.

    `WITH name (...)`, `FROM x AS name (...)`, `FROM x name (...)`, `INTO name (...)`, `CAST(x AS name (...))`,
    `x::name (...)`. In doubt a parenthesis is left out, so that it counts as a call.
    """
    found: set[int] = set()
    outer: list[bytes] = []
    clause = b""
    for index, word in enumerate(words):
        previous = words[index - 1] if index else b"("
        if word == b"(":
            if _opens_column_list(words, index, clause):
                found.add(index)
            outer.append(clause)
            in_from = clause == b"from" and previous in (b"from", b"join", b",", b"(")
            clause = b"from" if in_from else b""
        elif word == b")":
            clause = outer.pop() if outer else b""
        elif word == b"with":
            clause = b"with" if previous == b"(" or index == 0 else clause
        elif (word == b"from" and previous != b"distinct") or word == b"join":
            clause = b"from"
        elif word in _EXPRESSION_FOLLOWS:
            clause = b""
    return found


def _opens_column_list(words: list[bytes], index: int, clause: bytes) -> bool:
    start = index - 1
    while start > 1 and words[start - 1] == b".":
        start -= 2
    before = words[start - 1] if start > 0 else b""
    if not _is_name(words[start]) or words[start] in _KEYWORDS:
        return False
    if before in _NO_CALL_BEHIND:
        return True
    if clause == b"with":
        return before in (b"with", b"recursive", b",")
    return clause == b"from" and (before == b")" or (_is_name(before) and before not in _KEYWORDS))
