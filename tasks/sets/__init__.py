"""Distilled sets that somebody else made, read as they were published, one file a format."""
