"""Other people's suites, direct to PostgreSQL beside through pgamb (`python -m tests.compat`, `make compat`).

Each module with a `NAME` and a `run(place, *, short)` is a suite; a new one needs nothing but its file. It may also
have `NEEDS`, the Debian packages that it builds or runs with (`{major}` in a name is PostgreSQL's version), and
`SETTINGS`, what its servers' configuration has to say. One that `TAKES_LONG` runs after the others, and with `--short`
only while there is time.
"""
