"""Values every other room speaks in: settings, model, errors, events, names. They import nothing of ours."""
