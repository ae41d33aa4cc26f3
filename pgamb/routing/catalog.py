"""What a call of a function does, and what the mention of a name means, as far as routing must know.

`BuiltIn` knows PostgreSQL's own functions only, and takes every relation for a plain table. `Unread` stands for a
database of which no more is known yet; a `server_catalog.ServerCatalog` knows what one database has. Unknown is an
answer, and the safe one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Protocol

import msgspec

from pgamb.routing.functions import NON_VOLATILE, VOLATILE


class Effect(enum.Enum):
    """The effect of a call, from harmless to unknown."""

    HARMLESS = enum.auto()
    """Gives on a replica what it gives on the primary, and leaves nothing behind."""
    TRANSACTION_TIME = enum.auto()
    """Harmless, but one transaction has one answer."""
    PRIMARY = enum.auto()
    """Writes nothing, but is asked of the primary: it tells of the server, its WAL or the session."""
    SEQUENCE = enum.auto()
    """Tells what this session, and nobody else, has got from a sequence."""
    ADVISORY_LOCK = enum.auto()
    ADVISORY_UNLOCK = enum.auto()
    ASKS_SETTING = enum.auto()
    """Tells a session parameter, or who the server is: its argument decides."""
    SETTING = enum.auto()
    """Changes session parameters."""
    SEED = enum.auto()
    """Leaves state in the backend that nothing resets."""
    WRITES = enum.auto()
    WRITES_AND_STAYS = enum.auto()
    """Writes, and leaves state in the backend that nothing resets."""
    UNKNOWN = enum.auto()
    """May do anything, to the session too."""


class Hazard(msgspec.Struct, frozen=True):
    """Why a query that mentions something is more than a read, or reads the time of its transaction."""

    effect: Effect
    reason: str


class Catalog(Protocol):
    """Knows what calls do, and which names make a query more than a read."""

    @property
    def harmless(self) -> Set[bytes]:
        """The names in lower case for which `function(None, name)` says HARMLESS: asked first, as that is quicker."""

    @property
    def operators(self) -> Set[bytes]:
        """The operators of users and extensions that are harmless."""

    def is_suspicious(self, words: Set[bytes]) -> bool:
        """Tell whether a query with these words may have hazards."""

    def function(self, schema: str | None, name: str) -> Effect:
        """Tell the strongest effect of any function of that name; `schema` is None for an unqualified name."""

    def evidence(self, schema: str | None, name: str) -> str:
        """Say why `function` gives its answer; empty where nothing more is known."""

    def hazards(self, tokens: Sequence[bytes], words: Sequence[bytes]) -> Iterable[Hazard]:
        """Find what a query mentions that makes it more than a read; `words` are its tokens in lower case."""


# Volatile by declaration only: they change nothing, and their answer does not depend on the server.
_HARMLESS_VOLATILE = b"""
    clock_timestamp current_query gen_random_uuid pg_collation_actual_version pg_database_collation_actual_version
    pg_partition_ancestors pg_partition_tree pg_sleep pg_sleep_for pg_sleep_until random timeofday
""".split()

# What a time of day is in a time zone depends on the date.
_TRANSACTION_TIME = b"now transaction_timestamp age timetz pg_timezone_abbrevs pg_timezone_names".split()

# "Who am I", the WAL, and what one server or one session alone knows; sizes too: a replica has nothing of an unlogged
# table, and free space maps are each server's own. None of them writes.
_PRIMARY = b"""
    currtid inet_client_addr inet_client_port inet_server_addr inet_server_port lo_get pg_advisory_xact_lock
    pg_advisory_xact_lock_shared pg_backend_pid pg_blocking_pids
    pg_conf_load_time pg_config pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system
    pg_current_logfile pg_current_snapshot pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn
    pg_current_xact_id_if_assigned pg_cursor pg_database_size pg_get_backend_memory_contexts pg_get_multixact_members
    pg_get_replication_slots pg_get_shmem_allocations pg_get_wal_replay_pause_state pg_get_wal_resource_managers
    pg_hba_file_rules pg_ident_file_mappings pg_indexes_size pg_is_in_recovery pg_is_other_temp_schema
    pg_is_wal_replay_paused pg_isolation_test_session_is_blocked pg_jit_available pg_last_committed_xact
    pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_listening_channels pg_lock_status
    pg_ls_archive_statusdir pg_ls_dir pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir
    pg_ls_tmpdir pg_ls_waldir pg_my_temp_schema pg_notification_queue_usage pg_postmaster_start_time
    pg_prepared_statement pg_prepared_xact pg_read_binary_file pg_read_file pg_relation_size
    pg_replication_origin_progress pg_replication_origin_session_is_setup pg_replication_origin_session_progress
    pg_safe_snapshot_blocking_pids pg_sequence_last_value pg_show_all_file_settings pg_show_all_settings
    pg_show_replication_origin_status pg_stat_file pg_table_size pg_tablespace_size pg_total_relation_size
    pg_trigger_depth pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared pg_walfile_name pg_walfile_name_offset
    pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_xact_status txid_current_if_assigned
    txid_current_snapshot txid_status
""".split()

# Declared stable, and not to be believed: the first two assign a transaction id, the others read relations that the
# text does not name, views and unlogged tables included.
_WRITES = b"""
    txid_current pg_current_xact_id database_to_xml database_to_xml_and_xmlschema schema_to_xml
    schema_to_xml_and_xmlschema table_to_xml table_to_xml_and_xmlschema
""".split()

# What they make is the session's: a backup, a temporary slot, the origin that its commits name.
_WRITES_AND_STAYS = b"""
    pg_backup_start pg_copy_logical_replication_slot pg_copy_physical_replication_slot
    pg_create_logical_replication_slot pg_create_physical_replication_slot pg_replication_origin_session_setup
    pg_start_backup
""".split()

_ADVISORY_LOCKS = b"""
    pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
""".split()
_ADVISORY_UNLOCKS = b"pg_advisory_unlock pg_advisory_unlock_all pg_advisory_unlock_shared".split()

# Non-volatile functions by the release that added them. In an older release, a function of that name is a user's.
_ADDED: dict[int, list[bytes]] = {
    13: b"gcd lcm min_scale trim_scale normalize is_normalized".split(),
    14: b"""bit_count date_bin string_to_table trim_array unistr multirange range_agg range_intersect_agg
            pg_column_compression""".split(),
    15: b"regexp_count regexp_instr regexp_like regexp_substr has_parameter_privilege".split(),
    16: b"""any_value array_sample array_shuffle date_add date_subtract erf erfc pg_input_error_info pg_input_is_valid
            random_normal system_user json_array json_arrayagg json_objectagg""".split(),
    17: b"""icu_unicode_version json json_exists json_query json_scalar json_serialize json_table json_value pg_basetype
            pg_column_toast_chunk_id to_bin to_oct to_regtypemod unicode_assigned unicode_version uuid_extract_timestamp
            uuid_extract_version xmltext""".split(),
    18: b"array_reverse array_sort casefold crc32 crc32c gamma lgamma pg_get_acl uuidv4 uuidv7".split(),
}


OLDEST_VERSION = 13
"""The oldest major version that is known here."""


def _effects(server_version: int) -> dict[str, Effect]:
    effects = dict.fromkeys(NON_VOLATILE, Effect.HARMLESS) | dict.fromkeys(VOLATILE, Effect.WRITES)
    for version, names in _ADDED.items():
        for name in names:
            if version <= server_version:
                effects.setdefault(name, Effect.HARMLESS)
            else:
                effects.pop(name, None)
    for effect, names in (
        (Effect.HARMLESS, _HARMLESS_VOLATILE),
        (Effect.TRANSACTION_TIME, _TRANSACTION_TIME),
        (Effect.PRIMARY, _PRIMARY),
        (Effect.PRIMARY, [name for name in effects if name.startswith(b"pg_stat_get_")]),
        (Effect.WRITES, _WRITES),
        (Effect.WRITES_AND_STAYS, _WRITES_AND_STAYS),
        (Effect.ADVISORY_LOCK, _ADVISORY_LOCKS),
        (Effect.SEQUENCE, [b"currval", b"lastval"]),
        (Effect.ADVISORY_UNLOCK, _ADVISORY_UNLOCKS),
        (Effect.ASKS_SETTING, [b"current_setting"]),
        (Effect.SETTING, [b"set_config"]),
        (Effect.SEED, [b"setseed"]),
    ):
        effects.update((name, effect) for name in names if name in effects)
    return {name.decode(): effect for name, effect in effects.items()}


NOT_HARMLESS = frozenset(
    name.encode() for name, effect in _effects(max(_ADDED)).items() if effect is not Effect.HARMLESS
)
"""The names of PostgreSQL's own functions that are more than reads."""


class BuiltIn:
    """Knows the functions in `pg_catalog` of one major version; every other function is unknown."""

    __slots__ = ("_effects", "harmless")

    operators: frozenset[bytes] = frozenset()

    def __init__(self, server_version: int = 15) -> None:
        self._effects = _effects(server_version)
        self.harmless = frozenset(name.encode() for name, effect in self._effects.items() if effect is Effect.HARMLESS)

    def is_suspicious(self, words: Set[bytes]) -> bool:
        return False

    def function(self, schema: str | None, name: str) -> Effect:
        if schema is not None and schema != "pg_catalog":
            return Effect.UNKNOWN
        return self._effects.get(name, Effect.UNKNOWN)

    def evidence(self, schema: str | None, name: str) -> str:
        return ""

    def hazards(self, tokens: Sequence[bytes], words: Sequence[bytes]) -> Iterable[Hazard]:
        return ()


BUILT_IN = BuiltIn()

_SYSTEM_SCHEMAS = (b"pg_catalog.", b"information_schema.")
_RELATION_FOLLOWS = frozenset(b"from join table".split())
_QUERY_STARTS = frozenset(b"select values with ( table explain".split())


class Unread(BuiltIn):
    """Stands for a database whose catalogue has not been read: any relation of it may be a view that writes."""

    __slots__ = ("_hazard",)

    def __init__(self, why: str = "the catalogue of this database has not been read yet") -> None:
        super().__init__(OLDEST_VERSION)
        self._hazard = Hazard(Effect.PRIMARY, why)

    def is_suspicious(self, words: Set[bytes]) -> bool:
        return True

    def hazards(self, tokens: Sequence[bytes], words: Sequence[bytes]) -> Iterator[Hazard]:
        """Give one if any relation may be read that is not one of PostgreSQL's own, named with its schema."""
        # COPY has only the table's name examined.
        copied = bool(words) and words[0] not in _QUERY_STARTS and not words[0].startswith(_SYSTEM_SCHEMAS)
        if copied or any(
            word in _RELATION_FOLLOWS and not _is_system_relation(words, index + 1) for index, word in enumerate(words)
        ):
            yield self._hazard


def _is_system_relation(words: Sequence[bytes], index: int) -> bool:
    """Tell whether the one relation that is named here is PostgreSQL's own; of a list, that is not looked for."""
    if not words[index : index + 1] or not words[index].startswith(_SYSTEM_SCHEMAS):
        return False
    index += 1
    if words[index : index + 1] == [b"as"]:
        index += 1
    # With or without an alias.
    return b"," not in words[index : index + 2] and b"(" not in words[index : index + 2]
