"""`pgamb server`: the agent beside a PostgreSQL."""
