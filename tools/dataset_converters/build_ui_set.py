"""The same as ``mmvlr build-ui-set``."""

import sys

from mmvlr.cli import main

if __name__ == '__main__':
    sys.exit(main(['build-ui-set', *sys.argv[1:]]))
