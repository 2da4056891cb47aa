"""Malformed inputs by the thousand: each is read, or refused in one line, and soon.

    python -m tests.fuzz --count 2500 --seed 0 --processes 2 --kinds recipe "tar shard"

Every kind of file and option that a command reads is damaged and given to the command line's own
entry, `openeupe.cli.main`, in this process. Bytes of good files are flipped, cut, doubled and
overwritten; the values of good settings are replaced by others of every type. Prints a table of
kinds and outcomes; exits with 1 if any input ended in a traceback, in several lines, after more
than 20 s, or above 2 GB of memory.
"""
