"""Checks of manifests and the images they name: what is wrong, how badly, where, and a cleaned copy."""
