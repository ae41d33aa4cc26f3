"""The status page: a snapshot as HTML that any browser shows, without a script and without another request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from pgamb.observe.snapshot import MemberUse, PoolUse, Snapshot

REFRESH_S = 2

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5em auto; padding: 0 1em; max-width: 76em;
       color: #1c1c1c; background: #fff }
h1 { font-size: 1.4em; margin: 0 0 .2em }
h2 { font-size: 1.05em; margin: 1.4em 0 .3em }
table { border-collapse: collapse }
th, td { text-align: left; padding: .15em .9em .15em 0; border-bottom: 1px solid #8884; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.good { color: #17692f } .bad { color: #b3191f; font-weight: 600 } .dim { opacity: .6 }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #161616 }
       .good { color: #6fce89 } .bad { color: #ff8080 } }
""".strip()

# A cell: its text, and a class ("n" for numbers) where it has one.
Cell = tuple[str, str]


def render_page(snapshot: Snapshot) -> str:
    """Return the whole document. Every name in it comes from others, and is escaped."""
    readiness = snapshot.readiness
    title = f"pgamb client: {snapshot.service}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _paragraph(
            ("good" if readiness.ready else "bad"), f"{'ready' if readiness.ready else 'not ready'}: {readiness.reason}"
        ),
        _paragraph("dim", _about(snapshot)),
        *([_paragraph("bad", "draining: takes no new connection")] if snapshot.draining else []),
        *([_paragraph("bad", _conflict(snapshot))] if snapshot.conflict else []),
        "<h2>Registry</h2>",
        _paragraph("" if snapshot.registry.connected else "bad", _registry(snapshot)),
        "<h2>Members</h2>",
        _table(_MEMBER_HEAD, map(_member, snapshot.members)),
        "<h2>Pools</h2>",
        _table(_POOL_HEAD, map(_pool, snapshot.pools)),
        *_held(snapshot),
        "<h2>Applications</h2>",
        _table(
            [("", ""), ("", "n")],
            [[(name, ""), (value, "n")] for name, value in _application_rows(snapshot)],
        ),
        '<p class="dim"><a href="status.json">status.json</a> <a href="metrics">metrics</a></p>',
    ]
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="refresh" content="{REFRESH_S}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def duration(seconds: float) -> str:
    """Write a duration as a person would: `0.3 s`, `12 s`, `4 min 5 s`, `2 h 3 min`, `5 d 1 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: int) -> str:
    """Write a number of bytes with three digits or so."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("TB is the last")


def _about(snapshot: Snapshot) -> str:
    where = ", ".join(snapshot.listening) or "nowhere"
    return f"pgamb {snapshot.version}, up {duration(snapshot.uptime_s)}, listens at {where}"


def _conflict(snapshot: Snapshot) -> str:
    return f"{' and '.join(snapshot.conflict)} claim to be primary on one timeline: no writes until one is stopped"


def _registry(snapshot: Snapshot) -> str:
    registry = snapshot.registry
    parts = [registry.source]
    if registry.connected:
        parts.append(f"connected to {registry.endpoint}" if registry.endpoint else "connected")
    else:
        parts.append("not connected")
    if registry.age_s is not None:
        parts.append(f"topology confirmed {duration(registry.age_s)} ago")
    if registry.last_error:
        parts.append(registry.last_error)
    return "; ".join([*parts, *registry.notes])


_MEMBER_HEAD: Sequence[Cell] = [
    ("member", ""),
    ("role", ""),
    ("state", ""),
    ("timeline", "n"),
    ("address", ""),
    ("zone", ""),
    ("backends", "n"),
    ("it leaves us", "n"),
    ("walsenders", "n"),
    ("opened", "n"),
    ("lost", "n"),
    ("reachable", ""),
    ("behind", "n"),
    ("read from", ""),
]


def _member(member: MemberUse) -> list[Cell]:
    reach = ("yes", "good")
    if member.down_s is not None:
        reach = (f"no, for {duration(member.down_s)}: {member.last_error or 'it does not answer'}", "bad")
    return [
        (member.node, ""),
        (member.role, "bad" if member.role == "stale-primary" else ""),
        (member.state, ""),
        (str(member.timeline), "n"),
        (", ".join(member.addresses), ""),
        (member.zone, ""),
        (str(member.backends), "n"),
        ("" if member.backends_limit is None else str(member.backends_limit), "n"),
        (str(member.walsenders), "n"),
        (str(member.opened), "n"),
        (str(member.lost), "n"),
        reach,
        (_lag(member), "n"),
        _read_from(member),
    ]


def _lag(member: MemberUse) -> str:
    if member.lag_s is None or member.lag_bytes is None:
        return ""
    return f"{size(member.lag_bytes)}, {duration(member.lag_s)}"


def _read_from(member: MemberUse) -> Cell:
    if member.role != "replica":
        return ("", "")
    return (f"no: {member.unread_because}", "bad") if member.unread_because else ("yes", "good")


_POOL_HEAD: Sequence[Cell] = [
    ("member", ""),
    ("role", ""),
    ("database", ""),
    ("user", ""),
    ("active", "n"),
    ("idle", "n"),
    ("limit", "n"),
    ("waiting", "n"),
    ("longest wait", "n"),
    ("longest held", ""),
    ("units", "n"),
    ("received", "n"),
]


def _pool(pool: PoolUse) -> list[Cell]:
    held = ""
    if pool.longest_held_pid is not None:
        held = f"{duration(pool.longest_held_s)} by session {pool.longest_held_pid}"
        held += f", pinned by {', '.join(pool.longest_held_pins)}" if pool.longest_held_pins else ""
    return [
        (pool.member + (" (retired)" if pool.retired else ""), ""),
        (pool.role, ""),
        (pool.database, ""),
        (pool.user, ""),
        (str(pool.active), "n"),
        (str(pool.idle), "n"),
        (str(pool.limit), "n"),
        (str(pool.waiting), "n"),
        (duration(pool.longest_wait_s) if pool.waiting else "", "n"),
        (held, ""),
        (f"{pool.units:,}", "n"),
        (size(pool.received_bytes), "n"),
    ]


def _held(snapshot: Snapshot) -> list[str]:
    if not snapshot.held:
        return []
    return [
        "<h2>Held: these wait for a primary</h2>",
        _table(
            [("database", ""), ("user", ""), ("sessions", "n"), ("longest", "n")],
            [
                [(h.database, ""), (h.user, ""), (str(h.sessions), "n"), (duration(h.longest_s), "n")]
                for h in snapshot.held
            ],
        ),
    ]


def _application_rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    sessions, logins, routes = snapshot.sessions, snapshot.logins, snapshot.routes
    rows = [("sessions", f"{sessions.open:,} of {sessions.limit:,}")]
    rows += [(f"… {state.replace('_', ' ')}", f"{count:,}") for state, count in sessions.by_state.items()]
    rows += [(f"pinned by {reason}", f"{count:,}") for reason, count in sorted(sessions.pinned_by.items())]
    rows += [("units to the primary", f"{routes.to_primary:,}"), ("units to replicas", f"{routes.to_replica:,}")]
    rows += [(f"… {reason.replace('_', ' ')}", f"{count:,}") for reason, count in routes.by_reason.items()]
    rows += [(f"reads repeated: {reason}", f"{count:,}") for reason, count in routes.repeated.items() if count]
    freshness = snapshot.freshness
    rows += [
        ("consistency", freshness.consistency),
        ("floor of the last commit", freshness.floor or ""),
        ("questions about positions", f"{freshness.questions:,}"),
        ("waiting for a replica", f"{freshness.waiting:,}"),
        ("waited for a replica", f"{freshness.waits:,}"),
        ("… in vain", f"{freshness.waits_ended_by_timeout:,}"),
    ]
    rows += [(f"waited in vain ({reason})", f"{count:,}") for reason, count in sorted(snapshot.gave_up.items())]
    rows += [("logging in", f"{logins.under_way:,}"), ("logged in", f"{logins.accepted:,}")]
    rows += [(f"refused ({reason})", f"{count:,}") for reason, count in sorted(logins.refused.items())]
    rows += [("log-in timed out", f"{logins.timed_out:,}"), ("left before log-in", f"{logins.left:,}")]
    return [*rows, ("cancel requests", f"{logins.cancel_requests:,}")]


def _paragraph(style: str, text: str) -> str:
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def _table(head: Sequence[Cell], rows: Iterable[Sequence[Cell]]) -> str:
    lines = ["".join(_cell("td", cell) for cell in row) for row in rows]
    if not lines:
        return '<p class="dim">none</p>'
    title = "".join(_cell("th", cell) for cell in head) if any(text for text, _ in head) else ""
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in ([title] if title else []) + lines) + "</table>"


def _cell(tag: str, cell: Cell) -> str:
    text, style = cell
    return f'<{tag} class="{style}">{escape(text)}</{tag}>' if style else f"<{tag}>{escape(text)}</{tag}>"
