"""One short reader per public dataset."""
