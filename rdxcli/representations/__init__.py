"""Everything that yields a representation: extraction, resolving of names and files, joining, selection."""
