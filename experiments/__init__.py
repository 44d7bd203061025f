"""The experiments as commands: `python -m experiments` lists them."""
