"""The `tickhouse` command and its output."""
