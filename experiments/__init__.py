"""What was learnt: run each with `python -m experiments.NAME`, from the repository's root."""
