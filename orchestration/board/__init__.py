"""The board: a live page on what the pipeline has stored, and on how the pipeline is.

It shows what is stored and computes nothing of its own.
"""
