"""Back up: the database and the uploads into a draft, which is sealed, checked and published."""
