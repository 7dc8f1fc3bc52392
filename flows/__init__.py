"""Campaign and round as Prefect flows."""
