"""This toolkit beside the tools a person would reach for otherwise, on the same data, in one run: `benchmarks/run`.

    __main__    the options, and the program
    scenarios   what is measured, in which order; `trees`, `texts`, `starts` and `live` are its chapters
    peers       who is measured: each says in argument lists how it backs up and restores
    data        the app that is backed up, and what happens to it
    contents    whether what came back is what was there
    measure     one measurement: whole processes, until everything is on disk
    report      what was measured; `targets` judges it, `table` shows it, `machine` says where it was

It knows the toolkit only as a command, as its users do.
"""
