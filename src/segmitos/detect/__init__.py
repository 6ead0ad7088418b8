"""From slide to detections: numpy and an inference runtime, never torch."""
