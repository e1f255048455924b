"""What people read of a run: pages, figures, costs, findings."""
