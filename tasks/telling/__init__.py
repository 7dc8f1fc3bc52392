"""What is told while stages run: progress, Prefect's pages, metrics."""
