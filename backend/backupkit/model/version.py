"""The version of the toolkit, as the package and the metadata of each backup give it."""

VERSION = "0.1.0"
