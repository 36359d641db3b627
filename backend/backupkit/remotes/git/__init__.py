"""The git remote: `program` runs git, `layout` defines what a commit holds, `remote` is the remote."""
