"""A process that times the cases of one implementation: `python worker.py MODULE FUNCTION [ARGUMENT …]`.

It reads requests and writes answers, one JSON object on a line each, and ends with its input.

| request | answer |
| --- | --- |
| `{"do": "start"}` | `cases`, `import_s`, `build_s`: imports MODULE, calls FUNCTION(*ARGUMENTS) |
| `{"do": "run", "case": c, "steps": n}` | `seconds` for n steps; `loss` of the last one, where there is one |
| `{"do": "reset", "case": c}` | nothing |
| `{"do": "memory"}` | `peak_mib`, of the resident memory since the start |

A request that fails is answered by `error`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

CASES: dict[str, Any] = {}


def answer(request: dict[str, Any], module: str, function: str, arguments: list[str]) -> dict[str, Any]:
    match request["do"]:
        case "start":
            begun = time.perf_counter()
            found = importlib.import_module(module)
            imported = time.perf_counter()
            CASES.update(getattr(found, function)(*arguments))
            times = {"import_s": imported - begun, "build_s": time.perf_counter() - imported}
            return {"cases": list(CASES), **times}
        case "run":
            case = CASES[request["case"]]
            begun = time.perf_counter()
            case.run(request["steps"])
            seconds = time.perf_counter() - begun
            return {"seconds": seconds, **({"loss": case.loss()} if case.loss else {})}
        case "reset":
            CASES[request["case"]].reset()
            return {}
        case "memory":
            return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        case other:
            return {"error": f"unknown request {other!r}"}


def main(module: str, function: str, *arguments: str) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to stderr
    for line in sys.stdin:
        try:
            result = answer(json.loads(line), module, function, list(arguments))
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"}
        answers.write(json.dumps(result) + "\n")
    os._exit(0)  # without waiting for the threads of libraries


if __name__ == "__main__":
    main(*sys.argv[1:])
