"""Who is primary and who replicates: the model, its sources (etcd, static), and the agent's announcements."""
