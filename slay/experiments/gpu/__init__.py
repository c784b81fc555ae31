"""Everything that only a GPU can show, by one command, on a machine that is lent for minutes."""
