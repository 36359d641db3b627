"""The report: one HTML page that needs nothing beside it, neither a network nor a script."""
