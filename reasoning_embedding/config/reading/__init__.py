"""From YAML text to a checked configuration, every value with the address it was written at."""
