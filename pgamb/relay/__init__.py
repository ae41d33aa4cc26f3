"""The compiled data plane: everything that runs per message or per query once a connection is logged in."""
