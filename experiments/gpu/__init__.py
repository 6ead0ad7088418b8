"""The verifiers' training on one GPU, from one file that holds what they learn from."""
