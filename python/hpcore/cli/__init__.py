"""The `hpcore` command. Nothing imports this package."""
