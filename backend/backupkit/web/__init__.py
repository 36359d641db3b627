"""The web interface that `web` serves, and two self-contained files: the HTML report and the recovery sheet.

    access     accounts, sessions, the one-time link
    server     routes, security headers, event streams, downloads and uploads
    site       what every page shares: settings, visits, jobs, plans
    html       rendering of the templates in `templates/`; the stylesheet is in `static/`
    charts     geometry and text of the calendar and the size curves
    report     the two files
    pages, restoring, inside, plan, archives     the pages; a function for each page and each action

How to write a page. Write a function that takes a `Visit` and returns a `Page` (a template and its values), a `Goto` or
a `Content`, and add it to `GET` or `POST` at the end of its module. It runs in a thread; an exception becomes the
sentence and the hint that the command line shows. Run anything longer than a moment as a `Task`, with `visit.start`.
A `Plans` makes a plan (`start`), shows it (`shown`) and carries it out (`carried_out`). Everything in `POST` is for the
owner only. Templates escape every value.
"""
