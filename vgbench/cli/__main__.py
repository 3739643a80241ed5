"""``python -m vgbench.cli``."""

import sys

from vgbench.cli.main import main

sys.exit(main())
