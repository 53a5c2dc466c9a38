"""The page of a run's clusters: what each of them holds, how large it is and has been, what it says of labels."""
