"""One backup as one file: tar, compressed, and encrypted with age."""
