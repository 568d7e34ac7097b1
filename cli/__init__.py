"""The command `dualgraph`: one file for each subcommand, installed as the package `dualgraph.cli`."""
