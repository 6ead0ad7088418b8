"""Mutated inputs: whatever a file holds, no exception but the package's own reaches the user.

Each module of this package that has a function `targets` is one kind of input. By hand:

    python -m tests.fuzz --inputs 30000 --seed 7
"""
