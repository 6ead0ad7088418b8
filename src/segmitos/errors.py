"""Every error that SegMitos raises on purpose.

    SegMitosError
    ├── UsageError      the command or call asks for something that cannot be (exit code 2)
    ├── InputError      a file that cannot be read as what it should be (exit code 1)
    │   ├── ScaleError  the micrometers per pixel are unknown or impossible
    │   └── DataError   a data set or an annotation file is not in its format
    ├── ModelError      a model file, or the device to run it on (exit code 1)
    ├── TrainingError   a training that cannot go on (exit code 1)
    └── OutputError     a result that cannot be written (exit code 1)

A message is one line: what is wrong, in which file, with which value, what to do.
"""

from __future__ import annotations


class SegMitosError(Exception):
    """The base of all errors that a caller may want to catch."""

    exit_code = 1


class UsageError(SegMitosError):
    """An option or argument that makes no sense, alone or with the others."""

    exit_code = 2


class InputError(SegMitosError):
    """A file that is missing, damaged, or not what its name says."""


class ScaleError(InputError):
    """Micrometers per pixel that are unknown or impossible."""


class DataError(InputError):
    """A data set or annotation file that is not in its format."""


class ModelError(SegMitosError):
    """A model file that is refused, or a device that is not there."""


class TrainingError(SegMitosError):
    """A training that cannot go on: its loss left the finite numbers, or memory is too small."""


class OutputError(SegMitosError):
    """A result that cannot be written."""
