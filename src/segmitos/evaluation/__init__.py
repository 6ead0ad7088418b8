"""Scoring against annotations: matching, threshold sweep, tuning, curves."""
