"""Values: settings, the model of a backup, errors, events, names, times. They import nothing of ours.

Everything that crosses a layer is one of these, frozen. A rule about a value (a name, a cron expression, a setting) is
here, and raises an error that names what is allowed.
"""
