"""What pgqueue promises in figures, measured: `python3 dev.py bench`."""
