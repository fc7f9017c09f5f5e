"""Measurements, as ratios in one run against a plain loop."""
