"""The git remote: `program` runs git, `layout` says what a branch holds, `remote` is the remote."""
