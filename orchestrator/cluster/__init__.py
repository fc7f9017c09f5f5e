"""Ray clusters: their machines, jobs that are handed over, and whether all is well with them."""
