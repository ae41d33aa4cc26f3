"""Where an application wants its statements to go, as it says when it connects.

`dbname=shop?role=replica` is for applications that can be told a database name and nothing else; it means the same as
`options=-c pgamb.role=replica`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgamb.errors import InvalidParameterValue
from pgamb.wire.startup import parse_options

_PARAMETER = "pgamb.role"
_ROLES = ("primary", "replica", "auto")
_ALIAS = "?role="


def wish_of_startup(database: str, startup: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the database's real name, and the startup parameters with the wish among them.

    Raises InvalidParameterValue for a role that is none.
    """
    parameters = dict(startup)
    name, alias, role = database.rpartition(_ALIAS)
    if alias:
        _judge(role, f'in the database name "{database}"')
        database = name
        parameters[_PARAMETER] = role
    given = {**parameters, **parse_options(parameters.get("options", ""))}
    for parameter, value in given.items():
        if parameter.lower() == _PARAMETER:
            _judge(value, f"in the startup parameter {_PARAMETER}")
    return database, parameters


def _judge(role: str, where: str) -> None:
    if role.lower() not in _ROLES:
        raise InvalidParameterValue(f'"{role}" {where} is no role', hint="A role is primary, replica or auto.")
