"""What one can do with backups: each verb looks (`plan_…`) and acts; none prints, asks or exits."""
