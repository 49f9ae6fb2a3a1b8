"""``python -m mmvlr``: the command line without an installed script."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main())
