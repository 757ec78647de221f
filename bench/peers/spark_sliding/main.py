"""Spark's sliding windows at a slide of 10 s: a tick is then in 669 windows, at 1 s in 6,690."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from spark_windows import run

run(slide="10 seconds")
