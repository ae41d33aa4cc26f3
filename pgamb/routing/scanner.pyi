JUNK: bytes
"""Stands for a piece of text that is no token. Never the text of a real token."""

NOTE_OPERATOR: int
"""An operator of several characters, or of one that standard SQL has not."""
NOTE_NAME: int
"""A name such as PostgreSQL's own views, sequences' columns and functions of one argument have; or a `U&""`."""
NOTE_TIME: int
"""A literal, type or attribute that may hang on the start time of the transaction."""

def cut(sql: bytes, text: bytes, standard_conforming_strings: bool) -> tuple[list[bytes], list[bytes], int, bool]:
    """Cut SQL into tokens; `text` is the same in lower case.

    Return the tokens, the same in lower case, the NOTEs of all of them, and whether there is JUNK among them. Where no
    quoting keeps a case, both lists are one, all in lower case.
    """
