"""The four stream jobs, and what they share."""
