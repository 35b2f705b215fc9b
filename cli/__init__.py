"""The birnn command.

Its libraries compute on one thread, unless the environment says otherwise: a second one gains nothing on networks this
small and spins while it has nothing to do. They read the setting when they load, so it is set here, before any of them.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
