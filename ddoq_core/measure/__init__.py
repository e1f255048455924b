"""The measured side of the theory: distances, gradient gaps, and how sure a difference is."""
