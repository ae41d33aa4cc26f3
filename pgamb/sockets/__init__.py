"""Sockets that a process listens at: bound, accepted from, given by systemd, handed over to a successor."""
