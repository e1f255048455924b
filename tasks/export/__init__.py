"""The distilled set as other tools read it, one file a format."""
