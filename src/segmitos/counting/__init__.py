"""From detections to a count: hotspot, scores, intervals, summary."""
