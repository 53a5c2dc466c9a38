"""The method: alignment, cluster-guided negatives, masked reconstruction."""
