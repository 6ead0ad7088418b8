"""Mutated inputs for every reader: nothing but the package's own errors may come out.

    python -m tests.fuzz --inputs 30000 --seed 7

runs them by hand; `test_fuzz.py` runs a fixed selection. A kind of input is a module in `kinds/`
with a list `KINDS`: what a sound input is made of, which of its files are mutated, and which call
reads it.
"""
