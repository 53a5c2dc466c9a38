"""Recipes that come with the package: YAML files that state what differs from the defaults in `config.py`."""
