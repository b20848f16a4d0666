"""``python -m cas`` is the ``cas`` command."""

import sys

from cas.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
