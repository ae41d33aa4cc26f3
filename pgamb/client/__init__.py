"""`pgamb client`: PostgreSQL, as far as the application beside it can tell."""
