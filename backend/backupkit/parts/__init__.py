"""What the verbs are made of: each part knows one thing on disk."""
