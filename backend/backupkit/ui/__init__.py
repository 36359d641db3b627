"""The terminal interface: over the same functions, plans and events as the commands.

    window     the app: its places, the keys, the themes, what is known of the disk
    page       what each place is: a widget that is shown the world
    world      what is on disk at one moment, and the cheap look at whether it changed
    work       a function in a thread of its own: progress, cancel, how it ended
    dialogs    questions: yes or no, a name and a note
    terminal   what draws, and goes on when nobody looks any more
    styles     the words, symbols and colours for levels and states; never a colour alone
    overview, backups, restore, history     the places, in the order of their keys

How to write a place. It is a `Page` (`page.py`), and the window makes one of each kind, once:

- `self.settings` are the settings, `self.window` is the app.
- `show_world(world)` is called with a `RepositoryState` whenever the page is in view and something on disk changed,
  whoever changed it, and when the page comes into view. Everything shown comes from there or is read in a worker:
  nothing in the event loop may read more than a few small files.
- `about(name)` is called when a person comes to the page for a certain backup (`self.window.go("restore", name)`).
- A function of a feature runs through `await self.window.carry_out(Task(…))`, within a Textual worker:

        @work
        async def action_verify(self) -> None:
            task = Task("Verifying", lambda emit: verify_backups(self.settings, [backup], emit=emit), told)
            ended = await self.window.carry_out(task)  # ended.result, or ended.error, or neither: cancelled

  A dialog is up meanwhile, with progress and a button to cancel; then it shows the lines that `told` makes of the
  result, or the sentence and the hint of the error. `Task.steps_to_finish` names the steps from which there is only
  forward, and `Task.choices` what may be done next: a button each, and `ended.choice` is the one that was pressed.
- Anything that is read for longer than a moment (`self.window.fetch(act, show)`) is read in a thread; an error is
  shown as the same sentence and hint as on the command line, through `self.window.show_error`.
- A question is `await self.app.push_screen_wait(Question(…))`, in a worker too. Text of others (names in an archive,
  notes, paths) goes through `printable` and into widgets with `markup=False`.

This module imports nothing of Textual, which is an extra: `ui` without it is one line that says what to type.
"""
