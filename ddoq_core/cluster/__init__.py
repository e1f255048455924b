"""The quantiser: the best K points of a class, their weights. Loads no torch."""
