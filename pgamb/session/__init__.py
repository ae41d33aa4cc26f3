"""Conversations as generators, and what a session is made of. Pure: no sockets, no clock, no randomness."""
