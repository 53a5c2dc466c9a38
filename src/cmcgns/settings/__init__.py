"""Settings of a run: their types, their defaults, recipes."""
