"""Breaks a running stack on purpose, at random moments and at chosen ones, and has every result judged at the end."""
