"""What the commands are made of. Each part knows one thing on disk, and no command.

The backups folder (`store`, `manifest`, `integrity`, `marks`, `proofs`, `index`, `history`, `lock`, `journal`), data
(`sources`), the copies (`remotes`, `archive`, `encryption`), and pure decisions (`retention`, `anomaly`, `timetable`).
"""
