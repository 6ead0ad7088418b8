"""From clicks to a model file: labels, loss, sampling, networks; the only package with torch."""
