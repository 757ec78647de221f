"""Python imports this module when it starts, in every process that has this folder on its PYTHONPATH.

Belongs here: nothing but the call, so that a stack that is run without this folder has no failpoint in it at all.
"""

from tests.chaos.failpoints import install

install()
