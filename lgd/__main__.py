"""`python -m lgd`: the same as the command `lgd`."""

import sys

# `python -m` puts the working folder first on the import path, where a user's own torch.py or yaml.py would be imported
# instead of the library of that name. The command `lgd` and `python -P -m` do not.
if not sys.flags.safe_path:
    del sys.path[0]

from lgd.cli import main  # after the path is corrected

main()
