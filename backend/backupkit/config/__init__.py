"""Settings: read from `backup.toml` and the environment, checked, edited, and what they say of the deployment."""
