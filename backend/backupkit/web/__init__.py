"""Pages of HTML: those that `web` serves, and the report and the recovery sheet, which need nothing beside them.

    access     accounts, sessions, the link that opens once
    server     the routes, what each answer forbids the browser, what takes its time
    site       what every page shares: settings, who is there, plans
    html       how a page is made from its template in `templates/`; the stylesheet is in `static/`
    charts     what is drawn of days and sizes
    report, recovery_sheet     the two that are files
    jobs       work that goes on while pages come and go
    fixes      the command that mends something, as a button
    pages, restoring, beside, inside, rescuing, plan, archives     the places; a function for each page and each action

How to write a page. A function takes a `Visit` and returns a `Page` (a template and its values), a `Goto` or a
`Content`; it stands in `GET` or `POST` at the end of its module. It runs in a thread, and what it raises becomes the
sentence and the hint of the command line. What takes longer than a moment is a `Task`, begun by `visit.start`. A plan
is looked at by `visit.look`, shown by `shown_once`, and done by `visit.carry_out`. Whatever is in `POST` is for the
owner alone. Templates escape all that is put into them.
"""
