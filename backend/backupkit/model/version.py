"""The version of the toolkit, for whoever asks: each backup's metadata, and the package itself."""

VERSION = "0.1.0"
