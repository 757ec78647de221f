"""The exchanges that prices can be asked of."""
