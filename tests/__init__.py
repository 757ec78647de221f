"""Tests; a package so that `tests.reference` has one name everywhere."""
