"""python -m lgd.benchmarks.gpu"""

import sys

from lgd.benchmarks.gpu.command import main

sys.exit(main(sys.argv[1:]))
