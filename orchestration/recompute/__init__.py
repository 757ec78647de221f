"""Results computed again from the stored prices, to check or to replace what is stored."""
