"""The same as ``mmvlr align``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['align', *sys.argv[1:]]))
