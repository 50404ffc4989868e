"""One module per command: gather inputs, call a method, write an artifact."""
