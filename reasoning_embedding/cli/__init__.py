"""The command line: one thin file a verb; heavy libraries are imported inside the verbs."""
