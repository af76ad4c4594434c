"""`python -m hpcore` is the `hpcore` command."""

from hpcore.cli.main import main

if __name__ == "__main__":
    main(prog_name="hpcore")
