"""The exact optimum over λ: solved, kept, recorded and drawn."""
