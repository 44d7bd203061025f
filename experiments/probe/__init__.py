"""A linear probe: from features to the answer, and to a model that can be used."""
