"""The report's experiments as commands: `python -m experiments.NAME --helpshort`."""
