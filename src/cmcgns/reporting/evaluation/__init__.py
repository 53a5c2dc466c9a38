"""Reports of an evaluation for people: Markdown, CSV, one HTML page, pictures."""
