"""slay inside other libraries: one file each, and nothing is imported before it is asked for."""
