"""pgamb, a protocol-aware PostgreSQL ambassador."""

__version__ = "0.1.0"
