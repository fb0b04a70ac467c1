"""What models are scored on: local data as tasks of mteb, and mteb's own by name."""
