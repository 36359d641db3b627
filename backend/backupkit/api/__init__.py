"""The calls for programs, and `protected()`."""
