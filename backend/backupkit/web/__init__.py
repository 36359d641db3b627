"""Pages of HTML that need nothing beside them: the report and the recovery sheet."""
