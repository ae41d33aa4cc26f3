"""What the table of lazy transactions says about where a READ COMMITTED transaction is, as a model to test against."""

from __future__ import annotations

from dataclasses import dataclass, field

NOWHERE, VIRTUAL, ON_PRIMARY, ON_REPLICA = "nowhere", "virtual", "on the primary", "on a replica"

# Proven reads, and what is answered without asking anybody.
READS_ONLY = (
    "SELECT n, t FROM lazy ORDER BY n",
    "SELECT count(*) FROM seen",
    "VALUES (1)",
    "SAVEPOINT a",
    "",
    "BEGIN",
)
CONTROL = ("SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "RELEASE b", "BEGIN", "")
FAILURES = ("SELECT 1/0", "SELECT * FROM nowhere")
STAYS = (*READS_ONLY, *CONTROL, *FAILURES)
OPENS = (
    "INSERT INTO lazy VALUES (101, 'here')",
    "UPDATE lazy SET t = t",
    "SELECT now()",
    "SELECT current_timestamp",
    "SHOW transaction_isolation",
    "SHOW transaction_read_only",
    "SET LOCAL work_mem = '3MB'",
    "SET work_mem = '3MB'",
    "SELECT set_config('work_mem', '3MB', true)",
    "SELECT nextval('counter')",
    "SELECT txid_current()",
    "SELECT n FROM lazy WHERE n = 1 FOR UPDATE",
    "LOCK TABLE lazy IN ACCESS SHARE MODE",
    "SELECT pg_advisory_xact_lock(5)",
    "DECLARE c CURSOR FOR SELECT 1",
    "CREATE TABLE made (n int)",
    "RELEASE nowhere",
    "ROLLBACK TO nowhere",
)


@dataclass(slots=True)
class Placement:
    """Follows one transaction. PostgreSQL's own answers tell it what failed; where things are it says itself."""

    where: str = NOWHERE
    replica: str = ""
    real: bool = False
    failed: bool = False
    savepoints: list[str] = field(default_factory=list)

    def hear(self, sql: str, answer: str) -> None:
        """Take note of a statement and of its last answer, a ReadyForQuery."""
        status = answer[len("Z b'") : -1]
        if status == "I":
            self.where, self.real, self.failed, self.replica = NOWHERE, False, False, ""
            self.savepoints.clear()
            return
        if not self.failed and self._opens(sql):
            self.real = True
        if not self.real and status == "T":
            self._keep(sql)
        self.failed = status == "E"
        self.where = ON_PRIMARY if self.real else VIRTUAL

    def members(self) -> set[str]:
        """Return the members that may answer a read now."""
        if self.where == ON_PRIMARY:
            return {"pg1"}
        return {self.replica} if self.replica else {"pg2", "pg3"}

    def read_from(self, member: str) -> None:
        """Take note of who answered."""
        if self.where == VIRTUAL:
            self.replica = member

    def _opens(self, sql: str) -> bool:
        word, _, name = sql.partition(" ")
        if word == "RELEASE" or sql.startswith("ROLLBACK TO "):
            return name.removeprefix("TO ") not in self.savepoints
        return sql in OPENS

    def _keep(self, sql: str) -> None:
        word, _, name = sql.partition(" ")
        if word == "SAVEPOINT":
            self.savepoints.append(name)
        elif word == "RELEASE" or sql.startswith("ROLLBACK TO "):
            name = name.removeprefix("TO ")
            position = len(self.savepoints) - 1 - self.savepoints[::-1].index(name)
            del self.savepoints[position + (word == "ROLLBACK") :]
