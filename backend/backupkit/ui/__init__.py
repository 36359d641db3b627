"""The terminal interface: over the same functions, plans and events as the commands.

    window     the app: its places, the keys, what is known of the disk
    world      what is on disk at one moment, and the cheap look at whether it changed
    page       what each place is: a widget that is shown the world
    overview, backups, history     the places, in the order of their keys
    restore    from the plan, over the typed name, to the proof
    dialogs    questions: yes or no, a name and a note
    work       a function in a thread of its own: progress, cancel, how it ended
    terminal   what draws: only what can be printed, and nothing where nobody looks any more
    styles     the symbols and colours for levels and states; never a colour alone

What it does not do, the pages (`web`) and the commands do; it says what to type.

- A place is a `Page`; the window makes one of each kind, once, and calls `show_world` when it comes into view, and
  whenever something on disk changed. Everything shown comes from there, and was read in a thread (`world`).
- A function of a feature runs through `await self.window.carry_out(Task(…))`, within a Textual worker: a dialog shows
  progress and a button to cancel, and then the lines of the result, or the sentence and the hint of the error.
- A question is `await self.app.push_screen_wait(Question(…))`, in a worker too. Text of others (names, notes, paths)
  goes through `printable` and into widgets with `markup=False`.

This module imports nothing of Textual, which is an extra: `ui` without it is one line that says what to type.
"""
