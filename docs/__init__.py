"""The documentation, of which `reference.md` is made from the code."""
