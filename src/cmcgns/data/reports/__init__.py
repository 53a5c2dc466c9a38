"""Reports: from text to word pieces."""
