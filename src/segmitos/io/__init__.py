"""What comes in and goes out: images, data sets, detections."""
