"""How good, how many: matching, tuning, counting, reports."""
