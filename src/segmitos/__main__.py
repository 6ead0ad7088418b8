"""`python -m segmitos`."""

from segmitos.cli import console

if __name__ == "__main__":
    console()
