"""Studies: recipes that differ in some settings, trained with several seeds, judged alike, in one table."""
