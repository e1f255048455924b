"""What a run is asked for: settings, protocols, comparisons. Loads neither Prefect nor torch."""
