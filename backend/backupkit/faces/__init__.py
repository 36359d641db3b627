"""What people and machines see: only faces print, ask or exit.

The command line's words and errors (`render`, `as_json`, `boundary`), the interface (`ui`), the report, messages
(`notify`, `courier`), the scheduler (`daemon`), the calls for programs (`api`, `protected`), the demo.
"""
