"""Python imports this module when it starts, in every process that has this folder on its PYTHONPATH."""

from tests.chaos.failpoints import install

install()
