"""Verbs of the command line with their options; each calls its module of `commands`."""
