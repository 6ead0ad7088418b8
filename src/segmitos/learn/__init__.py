"""From points to a model file: the only folder that imports torch."""
