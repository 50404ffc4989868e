"""``python -m rdxcli`` is ``rdx``."""

from rdxcli.cli.app import main

if __name__ == "__main__":
    main()
