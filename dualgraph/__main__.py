"""`python -m dualgraph`: the command `dualgraph`."""

from dualgraph.cli.main import main  # type: ignore[import-not-found]  # checked as `cli`, where it lies

if __name__ == "__main__":
    main()
