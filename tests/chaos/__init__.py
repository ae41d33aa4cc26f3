"""A real cluster under load, broken in every way there is, and a checker of what the applications were told.

`make chaos` runs whole rounds and prints a table; `tests/chaos/test_*.py` are the short ones of `make test`.
"""
