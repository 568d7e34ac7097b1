"""`python -m dualgraph`: the command `dualgraph`."""

from dualgraph.cli.main import main

if __name__ == "__main__":
    main()
