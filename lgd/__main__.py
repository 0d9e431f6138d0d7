"""`python -m lgd`: the same as the command `lgd`."""

import os
import sys

# `python -m` puts the working folder first on the path, where a user's own torch.py or yaml.py would be imported
# instead of the library of that name. (The command `lgd` does not.)
if not os.path.exists(os.path.join(os.getcwd(), "lgd", "__main__.py")):
    sys.path[:] = [path for path in sys.path if path not in ("", os.getcwd())]

from lgd.cli import main  # only now

main()
