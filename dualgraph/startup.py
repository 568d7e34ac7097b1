"""What must come before any other import: unfit interpreters are refused, and signals end the command with a word.

In the command `dualgraph` a signal that comes while packages are still being imported would end in a traceback from
somewhere inside of them. Any other program keeps its own signal handlers.
Plain syntax only: the interpreters that are refused must be able to read this file.
"""

import os
import sys

OLDEST = (3, 11)


def refusal():  # type: () -> str
    """Why this interpreter cannot run dualgraph, and what to do; empty where it can."""
    found = "{} {}.{}".format(sys.implementation.name, *sys.version_info[:2])
    if sys.version_info < OLDEST:
        return "got {}; dualgraph needs Python {}.{} or newer; run it with such a one".format(found, *OLDEST)
    if sys.implementation.name != "cpython":
        return f"got {found}; dualgraph calls into CPython's own C interface; run it with CPython"
    if "free-threading build" in sys.version:  # sysconfig says so too, but takes milliseconds to load
        return (
            f"got a free-threaded build of {found}; dualgraph counts references, which such a build does otherwise; "
            "run it with the ordinary build (python3.14, not python3.14t)"
        )
    return ""


def is_command():  # type: () -> bool
    """Whether this process is the command: as a script of that name, or as `python -m dualgraph`."""
    script = str((getattr(sys, "argv", None) or [""])[0])
    if script == "-m":  # the module is still being looked for
        words = getattr(sys, "orig_argv", [])
        return any(
            words[n] == "dualgraph" and words[n - 1][:1] + words[n - 1][-1:] == "-m" for n in range(1, len(words))
        )
    return os.path.splitext(os.path.basename(script))[0] == "dualgraph"


def begin():  # type: () -> None
    why = refusal()
    if why and is_command():
        sys.exit("Error: " + why)
    if why:
        raise ImportError(why)
    if is_command():
        from dualgraph import signals

        signals.handle(signals.end)


begin()
