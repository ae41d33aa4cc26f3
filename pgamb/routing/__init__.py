"""Decisions: what a statement needs (Intent). Pure: no sockets, no clock, no randomness."""
