"""Detections and annotations as points: one module a file format."""
