"""Settings: read from `backup.toml` and the environment, checked and edited; and the deployment that they describe."""
