"""Figures and their intervals, from predictions."""
