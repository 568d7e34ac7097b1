"""The JSON document has the form that `report.py` declares, and nothing is timed that is not equal."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType

import pytest

from dualgraph.compare import identity, measure
from dualgraph.compare.arms import static_arm
from dualgraph.compare.environment import environment
from dualgraph.compare.identity import Identity
from dualgraph.compare.measure import ABLATION, Settings, measure_workload
from dualgraph.compare.report import SCHEMA_VERSION, Report
from dualgraph.compare.timing import Plan
from dualgraph.compare.workloads import find
from dualgraph.errors import ArgumentError

TINY = Settings(Plan(rounds=3, seconds=0.0005, warmups=1), 1)


def faults(value, form, path="report"):
    """Where a JSON value is not of a declared type."""
    origin, args = typing.get_origin(form), typing.get_args(form)
    if form is typing.Any:
        return []
    if origin in (typing.Union, UnionType):
        found = [faults(value, x, path) for x in args]
        return min(found, key=len)
    if is_dataclass(form):
        if not isinstance(value, dict) or set(value) != {f.name for f in fields(form)}:
            return [f"{path}: {value!r} is no {form.__name__}"]
        hints = typing.get_type_hints(form)
        return [x for key in value for x in faults(value[key], hints[key], f"{path}.{key}")]
    if origin is Mapping:
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no mapping"]
        return [x for key, item in value.items() for x in faults(item, args[1], f"{path}.{key}")]
    if origin is tuple:
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        forms = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return [
            x for n, (item, f) in enumerate(zip(value, forms, strict=True)) for x in faults(item, f, f"{path}[{n}]")
        ]
    if form is NoneType:
        return [] if value is None else [f"{path}: {value!r} is not null"]
    right = isinstance(value, (int, float) if form is float else form) and (form is bool or not isinstance(value, bool))
    return [] if right else [f"{path}: {value!r} is no {form.__name__}"]


@pytest.fixture(scope="module")
def affine():
    return measure_workload(find("affine"), TINY)


def document(record):
    return json.loads(json.dumps(Report(record.identical, True, environment(), {"affine": record}, 1.0).to_json()))


def test_document(affine):
    written = document(affine)
    assert faults(written, Report) == []
    assert written["schema"] == SCHEMA_VERSION == 1
    assert {"date", "cpu", "threads", "blas", "provider", "load_average", "numpy"} <= set(written["environment"])


def test_the_checker_of_the_form_finds_faults(affine):
    written = document(affine)
    written["workloads"]["affine"]["arms"]["eager"]["kernels"] = "9"
    written["workloads"]["affine"]["identical"] = 1
    del written["seconds"]
    assert len(faults(written, Report)) == 1
    written["seconds"] = 1.0
    assert [x.split(":")[0] for x in faults(written, Report)] == [
        "report.workloads.affine.identical",
        "report.workloads.affine.arms.eager.kernels",
    ]


def test_figures_fit_together(affine):
    eager, static = affine.arms["eager"], affine.arms["static"]
    assert affine.identical
    assert affine.rounds == 3
    assert [p.label for p in affine.passes] == [label for label, _ in ABLATION]
    assert (static.calls, static.kernels) == (1, affine.passes[3].kernels)
    assert affine.passes[0].kernels > affine.passes[3].kernels
    assert [p.ulp for p in affine.passes[:4]] == [0] * 4
    assert eager.calls > static.calls
    assert eager.step > static.step > 0
    assert eager.kernels_alone + eager.python == pytest.approx(eager.step)
    assert 0 <= static.arena_lower_bound <= static.arena
    assert affine.ratio.low <= affine.ratio.value <= affine.ratio.high
    for cache in ("cold", "warm"):
        parts = affine.first_step[cache]["static"]
        assert (
            parts["total"] >= sum(parts[s] for s in ("define", "differentiate", "optimise", "generate", "run")) * 0.99
        )


def test_training_gives_the_same_accuracy():
    trained = measure._trained(find("mlp"), lambda text: None)
    assert trained.equal
    assert trained.eager == trained.static > 0.95


def shifted(workload, *args, **named):
    """A static arm whose loss is off by a rounding."""
    arm = static_arm(workload, *args, **named)
    run = arm.run
    arm.run = lambda *batch: run(*batch) * 1.0000001
    return arm


def test_no_times_without_identity(monkeypatch):
    monkeypatch.setattr(identity, "static_arm", shifted)
    monkeypatch.setattr(measure, "interleaved", lambda *_: pytest.fail("timed"))
    record = measure_workload(find("affine"), TINY)
    assert not record.identical
    assert record.arms is record.ratio is record.first_step is None
    assert "step 1, output" in record.identity["static exact"].difference
    assert faults(document(record), Report) == []


def test_every_ablation_runs_other_passes():
    assert dict(measure.ABLATION)["fusion"] == ("fusion",)
    assert len({passes for _, passes in measure.ABLATION}) == len(measure.ABLATION)


def test_a_timed_run_that_ends_with_other_bits_is_not_reported(monkeypatch):
    equal = Identity(("eager", "static"), 1, 1, "", None)
    monkeypatch.setattr(identity, "check_workload", lambda *_, **__: {"static exact": equal})

    def drifting(workload, *args, **named):
        arm = static_arm(workload, *args, **named)
        run = arm.run
        if arm.name == "static (all)":
            arm.run = lambda *batch: (run(*batch), run(*batch))[0]
        return arm

    monkeypatch.setattr(measure, "static_arm", drifting)
    record = measure_workload(find("affine"), TINY)
    assert not record.identical
    assert record.arms is None
    assert "other bits than its peers" in record.warnings[0]


def test_unknown_workload():
    with pytest.raises(ArgumentError, match="did you mean 'affine'"):
        find("afine")
    with pytest.raises(ArgumentError, match="the workloads are affine, mlp"):
        find("zzz")
