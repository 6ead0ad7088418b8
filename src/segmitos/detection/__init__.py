"""From slide to detections: NumPy and an inference runtime, never torch."""
