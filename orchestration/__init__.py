"""Dagster and the local stack: the only package that sees producer, stream jobs and services together."""
