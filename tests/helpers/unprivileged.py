"""Commands bound by permission bits, even when root runs them."""

import sys

# Drops the capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: prctl 24 is PR_CAPBSET_DROP.
_DROP = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

# What goes before the command.
UNPRIVILEGED = [sys.executable, "-c", _DROP]
