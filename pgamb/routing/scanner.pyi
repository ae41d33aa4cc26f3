JUNK: bytes
"""Stands for a piece of text that is no token. Never the text of a real token."""

def cut(sql: bytes, text: bytes, standard_conforming_strings: bool) -> tuple[list[bytes], list[bytes], bool]:
    """Cut SQL into tokens; `text` is the same in lower case.

    Return the tokens, the same in lower case, and whether there is JUNK among them. Where no quoting keeps a case, both
    lists are one, all in lower case.
    """
