"""`python -m lgd`: the same as the command `lgd`."""

import sys


def main() -> None:
    """Run the `lgd` command. On platforms other than Linux: one line that says so, and exit code 1."""
    if sys.platform != "linux":  # before imports that fail there
        sys.exit(f"lgd: runs on Linux only, not on {sys.platform}")
    from lgd.pipeline.console import signals

    signals.watch()
    try:
        from lgd.cli import main as run

        run()
    finally:
        signals.end()


if __name__ == "__main__":
    # `python -m` puts the working folder first on the import path, where a user's own torch.py or yaml.py would be
    # imported instead of the library of that name. The command `lgd` and `python -P -m` do not.
    if not sys.flags.safe_path:
        del sys.path[0]
    main()
