"""The birnn command.

Libraries compute on one thread unless the environment says otherwise: a second thread gains nothing on networks this
small and burns time while idle. Libraries read the setting when they load, so it is set here, before any import.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
