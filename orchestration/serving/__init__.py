"""The serving store: loading it, its retention, and when to load."""
