"""The system around ``elth``: experiments, plans, Ray, MLflow, reports and the command line."""
