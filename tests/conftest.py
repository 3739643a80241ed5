"""One thread per test process: the processes of pytest-xdist are the parallelism."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
