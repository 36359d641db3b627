"""What a backup is filled from, and what a restore puts back: one module a kind of data."""
