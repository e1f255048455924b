"""What several stages read: sources, images, models, and each other's stores. Knows no stage."""
