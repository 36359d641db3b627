"""The terminal interface, built on the same functions, plans and events as the commands.

    window     the app: its pages and keys; it reads the state of the backups folder
    pages      that state, the base class of the pages, which show it, their symbols and colours (never a colour
               alone), the overview and the history
    backups    the page of the backups, and the actions on them
    restore    the restore dialog: plan, typed name, result
    dialogs    questions, forms and messages
    work       a dialog for a function that runs in a thread: progress, cancel, result
    terminal   terminal output: only printable text, and no error if the terminal is gone

For everything else the interface names the web page (`web`) or the command to type.

- The window creates each `Page` once, and calls `show_state` when the page comes into view and whenever something on
  disk changed. A page shows only that state, which was read in a thread.
- A long function runs through `await self.window.carry_out(Task(…))` in a Textual worker: a dialog shows progress and
  a button to cancel, and then the lines of the result, or the message and the hint of the error.
- A question is `await self.app.push_screen_wait(Question(…))`, in a worker too. Names, notes and paths, which others
  have written, go through `printable` and into widgets with `markup=False`.

This module does not import Textual, which is an extra: without it, `ui` prints one line that says what to type.
"""
