"""Segmentation on a frozen encoder: only a decoder over its maps is trained."""
