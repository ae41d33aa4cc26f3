"""What is known of each database: the SQL texts that its sessions use, and what they need."""

from __future__ import annotations

from pgamb.relay.statement import Plans, Statements
from pgamb.routing.classify import classify


class Catalogues:
    """Knows the databases of a process, each from the first session that uses it on."""

    def __init__(self) -> None:
        self._statements: dict[str, Statements] = {}

    def statements(self, database: str) -> Statements:
        """Return the statements of a database."""
        statements = self._statements.get(database)
        if statements is None:
            statements = self._statements[database] = Statements(Plans(classify))
        return statements
