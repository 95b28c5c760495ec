"""``python -m ehrfast.cli``: the same as the command ``ehrfast``."""

import sys

from ehrfast.cli import main

sys.exit(main())
