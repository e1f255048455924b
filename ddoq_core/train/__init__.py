"""Teachers and students: networks, augmentation, losses, accuracy."""
