"""A thin client of etcd's v3 API: only what `Store` needs, with every guard that losing a network teaches.

Why no published client will do is in docs/decisions/0001-etcd-client.md. Never fork a process that has imported this.
"""

import logging
import os

# grpcio writes to stderr by itself otherwise, and reads this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# It also tells Python's logging of every use of the event loop.
logging.getLogger("grpc").setLevel(logging.WARNING)
