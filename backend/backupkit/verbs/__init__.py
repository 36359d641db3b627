"""What one can do with backups: a module for each command.

A function `plan_…` looks and returns a frozen plan; the function that acts takes it. They raise, return and emit
events; none prints, asks, exits or logs. What writes runs under the lock and is recorded (`recording`).
"""
