"""The board: a live page on what the pipeline has stored, and on how the pipeline is.

Here: reading what is shown (`rows`, `scores`, `watcher`), drawing it (`thinning`, `figures`, `panels`, `page`), and
serving it (`app`, `guard`, `__main__`). It shows what is stored and computes nothing of its own.
Not here: how the pipeline is found to be (`orchestration.status`), or alerts (`orchestration.alert_log`).
"""
