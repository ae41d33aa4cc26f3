"""What each of PostgreSQL's commands needs, told from its first word on. A command without a rule here writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from pgamb.routing.definitions import intent_of_alter, intent_of_drop, need_of_definition, pins_of_definition
from pgamb.routing.intent import EVERY_PIN, NO_NEED, NO_PIN, Intent, Need, Pin
from pgamb.routing.lexer import is_literal
from pgamb.routing.prepare import intent_of_deallocate, intent_of_execute, intent_of_prepare
from pgamb.routing.query import SERVER_PARAMETERS, Finding, Level, examine, examine_calls
from pgamb.routing.scanner import NOTE_NAME
from pgamb.routing.statement import Statement


def _plain(need: Need, reason: str, *, pins: Pin = NO_PIN, unpins: Pin = NO_PIN, name: str | None = None) -> Intent:
    return Intent(need, pins, unpins, reason, name)


def intent_of(statement: Statement) -> Intent:
    """Tell what a statement needs."""
    first = statement.words[0]
    rule = _RULES.get(first)
    if rule is not None:
        return rule(statement)
    return _plain(NO_NEED, f"{first.decode(errors='replace').upper()} is not known to be a read")


def _command(statement: Statement) -> str:
    return statement.words[0].decode(errors="replace").upper()


def _query(statement: Statement) -> Intent:
    first = statement.words[0]
    if first == b"(":
        first = next((word for word in statement.words if word != b"("), b"")
    if first not in _QUERIES:
        return _plain(NO_NEED, "starts with a parenthesis and is no query")
    finding = examine(statement.tokens, statement.words, statement.notes, statement.catalog)
    return finding.intent(first.decode(errors="replace").upper())


_QUERIES = frozenset(b"select values table with".split())
_CHANGES = frozenset(b"insert update delete merge".split())


def _change(statement: Statement) -> Intent:
    """INSERT, UPDATE, DELETE, MERGE: a write, and what the functions in it do to the session besides."""
    finding = Finding()
    examine_calls(statement.tokens, statement.words, statement.catalog, finding)
    if statement.notes & NOTE_NAME and _names(statement, b"pg_settings"):
        # UPDATE pg_settings is a SET.
        finding.need |= Need.SETTINGS
    return _plain(finding.need, f"{_command(statement)} writes", pins=finding.pins, unpins=finding.unpins)


def _names(statement: Statement, name: bytes) -> bool:
    """Tell whether a name is in it, qualified and quoted or not."""
    return any(word.rpartition(b".")[2].strip(b'"') == name or word[:3] == b'u&"' for word in statement.words)


def _explain(statement: Statement) -> Intent:
    words = statement.words
    start = 1
    analyze = False
    if statement.word(1) == b"(" and statement.word(2) not in _QUERIES | {b"("}:
        if b")" not in words:
            return _plain(NO_NEED, "EXPLAIN is not complete")
        start = words.index(b")") + 1
        for index in range(2, start):
            if words[index] in (b"analyze", b"analyse") or words[index][-1:] == b'"':
                # Only words switch it off here: a text's intent must not hang on its constants (0, 'off').
                analyze |= statement.word(index + 1) not in (b"off", b"false")
    else:
        while statement.word(start) in (b"analyze", b"analyse", b"verbose"):
            analyze |= words[start] != b"verbose"
            start += 1
    explained = statement.part(start)
    first = next((word for word in explained.words if word != b"("), b"")
    names = Need.NAMES if b"execute" in explained.words else NO_NEED
    if analyze:
        if first in _QUERIES | _CHANGES:
            return intent_of(explained)
        return _plain(Need.SETTINGS | names, "EXPLAIN ANALYZE runs its statement")
    if first == b"execute":
        return _plain(Need.NEUTRAL | Need.NAMES, "EXPLAIN of a statement that the session has prepared")
    if first not in _QUERIES | _CHANGES:
        return _plain(names, f"EXPLAIN {first.decode(errors='replace').upper()} is not known to be a read")
    finding = examine(explained.tokens, explained.words, explained.notes, explained.catalog)
    if finding.level is Level.UNKNOWN:
        # The planner runs functions that are declared stable, whatever they do.
        return _plain(finding.need, finding.reason)
    if finding.hazardous and finding.level is not Level.READ:
        # The planner of a replica refuses an unlogged table.
        return _plain(Need.NEUTRAL, finding.reason)
    if finding.level is Level.WRITES:
        # Planning takes the locks that running it would take.
        return _plain(Need.NEUTRAL, "EXPLAIN of what belongs on the primary")
    # A plan shows times that the planner has worked out.
    need = Need.READ | (finding.need & Need.TRANSACTION_TIME)
    return _plain(need, f"EXPLAIN {first.decode(errors='replace').upper()} without ANALYZE runs nothing")


def _unknown(reason: str) -> Intent:
    return _plain(Need.SETTINGS, reason)


def _show(statement: Statement) -> Intent:
    parameter = _parameter(statement, 1)
    if parameter is None or parameter in SERVER_PARAMETERS or statement.word(1) in (b"transaction", b"session"):
        return _plain(Need.NEUTRAL | Need.SHOW, f"SHOW {parameter} is asked of the primary", name=parameter)
    words = statement.words
    dotted = words[2::2] == [b"."] * (len(words) // 2 - 1) and len(words) % 2 == 0
    if not dotted and words[1:] != [b"time", b"zone"]:
        return _plain(Need.SHOW, "SHOW of more than a parameter is no SQL", name=parameter)
    return _plain(Need.READ | Need.SHOW, f"SHOW {parameter}", name=parameter)


def _parameter(statement: Statement, index: int) -> str | None:
    """Give the parameter that SET, RESET or SHOW means; the ways of the standard to say it included."""
    two = (statement.word(index), statement.word(index + 1))
    match two:
        case (b"time", b"zone"):
            return "timezone"
        case (b"session", b"authorization"):
            return "session_authorization"
        case (b"transaction", b"isolation"):
            return "transaction_isolation"
        case (b"names", following) if following not in (b"to", b"="):
            return "client_encoding"
        case (b"schema", following) if is_literal(following):
            return "search_path"
        case (b"xml", b"option"):
            return "xmloption"
    parts = [statement.name(index)]
    while statement.word(index + 1) == b".":
        index += 2
        parts.append(statement.name(index))
    # Parameters are found without regard to case, even quoted ones.
    names = [part.lower() for part in parts if part is not None]
    return ".".join(names) if len(names) == len(parts) else None


def _set(statement: Statement) -> Intent:
    word, following = statement.word(1), statement.word(2)
    if word == b"transaction" and following not in (b"to", b"="):
        return _plain(Need.NEUTRAL | Need.CONTROL, "SET TRANSACTION")
    if word == b"constraints" and following not in (b"to", b"="):
        return _plain(Need.NEUTRAL, "SET CONSTRAINTS")
    if word == b"session" and following == b"characteristics":
        return _plain(Need.NEUTRAL | Need.SET, "SET SESSION CHARACTERISTICS")
    start = 1
    local = word == b"local" and following not in (b"to", b"=")
    if local or (word == b"session" and following not in (b"to", b"=", b"authorization")):
        start = 2
    parameter = _parameter(statement, start)
    need = Need.NEUTRAL if local else Need.NEUTRAL | Need.SET
    pins, unpins = NO_PIN, NO_PIN
    if parameter == "session_authorization":
        default = statement.words[-1] == b"default"
        pins, unpins = (NO_PIN, Pin.SESSION_AUTHORIZATION) if default else (Pin.SESSION_AUTHORIZATION, NO_PIN)
    elif parameter == "seed":
        pins = Pin.OTHER
    elif parameter == "search_path" and any(b"pg_temp" in value for value in statement.words[start:]):
        # What is created from now on may be temporary, though no statement says so.
        pins = Pin.TEMPORARY
    if local:
        pins, unpins = pins & (Pin.OTHER | Pin.TEMPORARY), NO_PIN
    return _plain(need, f"SET {parameter}", pins=pins, unpins=unpins, name=parameter)


def _reset(statement: Statement) -> Intent:
    parameter = _parameter(statement, 1)
    unpins = Pin.SESSION_AUTHORIZATION if parameter == "session_authorization" else NO_PIN
    return _plain(Need.NEUTRAL | Need.SET, f"RESET {parameter}", unpins=unpins, name=parameter)


def _begin(statement: Statement) -> Intent:
    need = Need.NEUTRAL | Need.BEGIN | Need.CONTROL
    words = statement.words
    read_only = False
    serializable = False
    for word, following in pairwise(words):
        if word == b"read" and following in (b"only", b"write"):
            # The last one counts; PostgreSQL 16 and later refuse two that differ.
            read_only = following == b"only"
            need = need & ~Need.READ_WRITE if read_only else need | Need.READ_WRITE
        elif word == b"level":
            serializable = following == b"serializable"
            if serializable or following == b"repeatable":
                need |= Need.SNAPSHOT
    if read_only and not serializable:
        need |= Need.READ_ONLY
    return _plain(need, "BEGIN READ ONLY" if need & Need.READ_ONLY else "BEGIN of a transaction that may write")


def _commit(statement: Statement) -> Intent:
    if statement.word(1) == b"prepared":
        return _plain(Need.CONTROL | Need.COMMITS, "COMMIT PREPARED writes")
    return _end(statement, Need.COMMITS)


def _rollback(statement: Statement) -> Intent:
    if statement.word(1) == b"prepared":
        return _plain(Need.CONTROL, "ROLLBACK PREPARED writes")
    if b"to" in statement.words:
        index = statement.words.index(b"to") + 1
        index += statement.word(index) == b"savepoint" and len(statement.words) > index + 1
        return _plain(Need.NEUTRAL | Need.CONTROL, "ROLLBACK TO SAVEPOINT", name=statement.name(index))
    return _end(statement, NO_NEED)


def _end(statement: Statement, commits: Need) -> Intent:
    need = Need.NEUTRAL | Need.CONTROL | commits
    if b"chain" not in statement.words or b"no" in statement.words:
        need |= Need.END
    return _plain(need, _command(statement))


def _savepoint(statement: Statement) -> Intent:
    index = 2 if statement.word(1) == b"savepoint" and len(statement.words) > 2 else 1
    word = _command(statement)
    return _plain(Need.NEUTRAL | Need.CONTROL, word, name=statement.name(index))


def _discard(statement: Statement) -> Intent:
    match statement.word(1):
        case b"all":
            return _plain(Need.NEUTRAL | Need.DEALLOCATE_ALL, "DISCARD ALL", unpins=EVERY_PIN)
        case b"temp" | b"temporary":
            return _plain(Need.NEUTRAL, "DISCARD TEMP", unpins=Pin.TEMPORARY)
    return _plain(Need.NEUTRAL, "DISCARD")


def _listen(statement: Statement) -> Intent:
    return _plain(Need.NEUTRAL, "LISTEN needs its own backend", pins=Pin.LISTEN, name=statement.name(1))


def _unlisten(statement: Statement) -> Intent:
    return _plain(Need.NEUTRAL, "UNLISTEN", unpins=Pin.LISTEN, name=statement.name(1))


def _declare(statement: Statement) -> Intent:
    words = statement.words
    if b"for" not in words:
        return _plain(NO_NEED, "DECLARE is not complete")
    start = words.index(b"for")
    hold = b"hold" in words[2:start] and b"without" not in words[2:start]
    query = _query(statement.part(start + 1)) if start + 1 < len(words) else _unknown("DECLARE is not complete")
    pins = query.pins | Pin.HOLD_CURSOR if hold else query.pins
    need = query.need & ~(Need.READ | Need.NEUTRAL)
    if query.writes:
        return _plain(need, query.reason, pins=pins, unpins=query.unpins, name=statement.name(1))
    reason = "DECLARE CURSOR WITH HOLD needs its own backend" if hold else "DECLARE CURSOR"
    return _plain(need | Need.NEUTRAL, reason, pins=pins, unpins=query.unpins, name=statement.name(1))


def _close(statement: Statement) -> Intent:
    return _plain(Need.NEUTRAL, "CLOSE", unpins=Pin.HOLD_CURSOR, name=statement.name(1))


def _cursor(statement: Statement) -> Intent:
    return _plain(Need.NEUTRAL, f"{_command(statement)} uses a cursor of the session")


def _copy(statement: Statement) -> Intent:
    words = statement.words
    direction = _find_at_top(words, (b"to", b"from"))
    if direction is None:
        return _plain(NO_NEED, "COPY is not complete")
    # Either word of the two is the application, whatever the direction.
    to_application = statement.word(direction + 1) in (b"stdin", b"stdout")
    if words[direction] == b"from":
        return _plain(Need.COPY_IN if to_application else NO_NEED, "COPY FROM writes")
    source = statement.part(1, direction)
    if source.word(0) == b"(":
        copied = _query(source) if source.word(1) in _QUERIES | {b"("} else _change(source.part(1))
    else:
        # Behind the table's name there may be a list of columns, which looks like a call.
        name_only = source.words.index(b"(") if b"(" in source.words else None
        table = source.part(0, name_only)
        copied = examine(table.tokens, table.words, table.notes, table.catalog).intent("COPY")
    # Behind the direction there are options; a change among them is no SQL.
    if to_application and (copied.writes or _CHANGES.isdisjoint(words)):
        return copied
    need = copied.need & ~(Need.READ | Need.NEUTRAL)
    return _plain(need, "COPY TO a file or program on the server", pins=copied.pins, unpins=copied.unpins)


def _find_at_top(words: Sequence[bytes], wanted: tuple[bytes, ...]) -> int | None:
    depth = 0
    for index, word in enumerate(words):
        if word == b"(":
            depth += 1
        elif word == b")":
            depth -= 1
        elif depth == 0 and word in wanted:
            return index
    return None


def _create(statement: Statement) -> Intent:
    words = statement.words
    finding = Finding()
    if b"as" in words:
        # CREATE TABLE ... AS runs a query, and with it whatever the query calls.
        query = statement.part(words.index(b"as") + 1)
        examine_calls(query.tokens, query.words, query.catalog, finding)
        if query.word(0) == b"execute":
            finding.need |= Need.SETTINGS | Need.NAMES
    pins = finding.pins | pins_of_definition(words)
    if _is_temporary(statement) and not _has(words, (b"on", b"commit", b"drop")):
        pins |= Pin.TEMPORARY
    reason = "CREATE TEMPORARY needs its own backend" if pins & Pin.TEMPORARY else "CREATE writes"
    return _plain(finding.need | need_of_definition(words), reason, pins=pins, unpins=finding.unpins)


def _is_temporary(statement: Statement) -> bool:
    index = 3 if statement.words[1:3] == [b"or", b"replace"] else 1
    index += statement.word(index) in (b"local", b"global")
    return statement.word(index) in (b"temp", b"temporary") or any(
        word.strip(b'"').startswith((b"pg_temp", b'u&"')) for word in statement.words
    )


def _has(words: Sequence[bytes], run: tuple[bytes, ...]) -> bool:
    return any(tuple(words[index : index + len(run)]) == run for index in range(len(words)))


def _load(_statement: Statement) -> Intent:
    return _plain(Need.NEUTRAL | Need.SETTINGS, "LOAD puts a library into one backend", pins=Pin.LOAD)


def _runs_code(statement: Statement) -> Intent:
    return _unknown(f"{_command(statement)} runs code that is not looked into")


def _writes(statement: Statement) -> Intent:
    return _plain(NO_NEED, f"{_command(statement)} belongs on the primary")


_WRITING_COMMANDS = (
    b"analyse analyze checkpoint cluster comment grant import lock notify reassign refresh reindex revoke "
    b"security truncate vacuum"
)

_RULES: dict[bytes, Callable[[Statement], Intent]] = {
    **dict.fromkeys(_WRITING_COMMANDS.split(), _writes),
    **dict.fromkeys(_QUERIES | {b"("}, _query),
    **dict.fromkeys(_CHANGES, _change),
    b"abort": _rollback,
    b"alter": intent_of_alter,
    b"begin": _begin,
    b"call": _runs_code,
    b"close": _close,
    b"commit": _commit,
    b"copy": _copy,
    b"create": _create,
    b"deallocate": intent_of_deallocate,
    b"declare": _declare,
    b"discard": _discard,
    b"do": _runs_code,
    b"drop": intent_of_drop,
    b"end": _commit,
    b"execute": intent_of_execute,
    b"explain": _explain,
    b"fetch": _cursor,
    b"listen": _listen,
    b"load": _load,
    b"move": _cursor,
    b"prepare": intent_of_prepare,
    b"release": _savepoint,
    b"reset": _reset,
    b"rollback": _rollback,
    b"savepoint": _savepoint,
    b"set": _set,
    b"show": _show,
    b"start": _begin,
    b"unlisten": _unlisten,
}
