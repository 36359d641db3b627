"""The command line: text and JSON, questions, errors, and the scheduler's process."""
