def fingerprint_of(sql: bytes) -> bytes:
    """Return what the text has in common with all that differ from it in values only; the text itself if nothing."""
