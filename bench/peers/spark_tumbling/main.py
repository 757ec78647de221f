"""The usual Spark way: six tumbling windows."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from spark_windows import run

run(slide=None)
