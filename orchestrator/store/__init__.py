"""What is kept, in MLflow: stages and their results, leases, and what waits to be published."""
