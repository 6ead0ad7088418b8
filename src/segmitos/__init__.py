"""SegMitos: mitosis detection in H&E histopathology, trained from one click per mitosis."""

__version__ = "0.1.0"
