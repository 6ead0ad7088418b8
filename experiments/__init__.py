"""What was learned: run each with `python -m experiments.NAME`, from the repository's root."""
