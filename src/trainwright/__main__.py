"""The command `trainwright`, and `python -m trainwright`."""

import sys

from trainwright.cli import main

if __name__ == "__main__":
    sys.exit(main())
