"""What the verbs of the command line do: options in, exit code out; all printing is here."""
