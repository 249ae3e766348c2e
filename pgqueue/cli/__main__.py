"""`python -m pgqueue.cli`."""

from pgqueue.cli import main

main(prog_name="pgqueue")
