"""The installation's witness: remembers the largest checkpoint of every tenant's log and cosigns what extends it."""
