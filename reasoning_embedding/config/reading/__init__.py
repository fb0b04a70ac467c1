"""From YAML text to a checked configuration: every value keeps the address it was written at."""
