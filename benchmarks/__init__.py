"""What is timed: run each with `python -m benchmarks.NAME`, from the repository's root."""
