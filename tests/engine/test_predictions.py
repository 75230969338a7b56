"""Predictions on the record: no weight changes for them, no sample is lost with another."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from torch import nn

from hpo import cli
from hpo.api import study
from hpo.database.connection import connect
from hpo.database.records import Records
from hpo.database.retention import Limits, collect
from hpo.database.schema import predictions
from hpo.display.predictions import print_predictions
from hpo.engine import trial
from hpo.engine.plan import Plan
from hpo.engine.predictions import plain, predicted
from hpo.engine.recording import Recording
from hpo.engine.reports import Sample
from hpo.errors import ConfigurationError
from hpo.task.validation import validated
from objectives import Context, Prediction, Task, load
from tests.support.program import Program
from tests.support.studies import keep
from tests.support.toys import CPU, Log, ToyTask, weights

UID = "00000000-0000-4000-8000-000000000001"


class Kept(Log):
    """A reporter that remembers samples by step."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.samples: dict[int, list[Sample]] = {}

    def on_epoch(self, epoch) -> bool:
        if epoch.samples:
            self.samples[epoch.step] = list(epoch.samples)
        return super().on_epoch(epoch)

    def on_predictions(self, samples, *, epoch, step) -> None:
        assert epoch == step // 10
        self.samples[step] = list(samples)


class Shown(ToyTask):
    """Shows its outputs; sample `bad` cannot be shown."""

    def __init__(self, *, bad: int | None = None, count: int = 5) -> None:
        super().__init__()
        # One part is frozen on purpose, as a norm layer of a loaded model may be.
        self.body[2].eval()
        self.bad, self.count = bad, count
        self.surroundings: dict[str, Any] = {}

    def predict(self, samples: range):
        self.surroundings = {
            "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
            "inference": torch.is_inference_mode_enabled(),
            "training": [part.training for part in self.body],
        }
        torch.randn(100)
        found = []
        for sample in samples:
            if sample == self.bad:
                raise ZeroDivisionError("no such\nthing")
            if sample < self.count:
                out = self.head(self.body(torch.ones(1, 4)))
                found.append(Prediction("table", {"x": 1.0}, None, {"y": out[0]}, float(sample)))
        return found


def plan(**changes) -> Plan:
    return Plan(**{"epochs": 2, "precision": "fp32", "device": CPU, "metric": "error", **changes})


def test_samples_are_kept_after_each_epoch_and_before_the_first():
    log = Kept()

    trial.train(Shown(), plan(predictions=3), log)

    assert list(log.samples) == [0, 10, 20]
    assert [sample.sample for sample in log.samples[10]] == [0, 1, 2]
    assert [sample.score for sample in log.samples[10]] == [0.0, 1.0, 2.0]
    assert log.samples[0] != log.samples[20]
    assert all(sample.latency_s > 0 for sample in log.samples[10])


def test_samples_are_kept_every_so_many_steps():
    log = Kept()

    trial.train(Shown(), plan(predictions=8, predictions_every=4), log)

    assert list(log.samples) == [0, 4, 8, 12, 16, 20]
    # It has five.
    assert [sample.sample for sample in log.samples[4]] == [0, 1, 2, 3, 4]


def test_none_are_asked_for_where_none_are_kept():
    task, log = Shown(), Kept()

    trial.train(task, plan(), log)

    assert (log.samples, task.surroundings) == ({}, {})
    assert predicted(ToyTask(), range(8), CPU) == []


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_autocast_of_neither_device_type_reaches_predictions_or_validation(kind):
    class Looking(Shown):
        def validate(self):
            self.seen = torch.is_autocast_enabled(kind)
            return super().validate()

    task = Looking()
    before = torch.is_autocast_enabled(kind)
    torch.set_autocast_enabled(kind, True)
    try:
        predicted(task, range(1), CPU)
        validated(task, device=CPU, metric="error")
        still_on = torch.is_autocast_enabled(kind)
    finally:
        torch.set_autocast_enabled(kind, before)

    assert task.surroundings["autocast"] == [False, False]
    assert (task.seen, still_on) == (False, True)


def test_predictions_are_made_in_evaluation_and_inference_mode_and_leave_no_trace():
    task = Shown()
    modes = [part.training for part in task.body]
    state = torch.get_rng_state()

    predicted(task, range(3), CPU)

    assert task.surroundings["inference"]
    assert task.surroundings["training"] == [False, False, False]
    assert [part.training for part in task.body] == modes == [True, True, False]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_record_between_validations_is_of_the_weights_as_they_are():
    objective = load("ris_covariance")
    context = Context(
        device=CPU,
        size="unit",
        epochs=1,
        seed=3,
        problem_seed=objective.problem_seed("unit"),
        options={"installation": "fixed"},
    )
    task = objective.build({**objective.defaults("wide"), "lr": 3e-2, "batch": 64}, context)
    recorded, fresh = {}, {}

    class Comparing(Kept):
        def on_predictions(self, samples, *, epoch, step):
            recorded[step] = samples[0].prediction
            task._validated = None
            fresh[step] = predicted(task, range(1), CPU)[0].prediction

    trial.train(
        task, plan(epochs=1, metric="J_db", predictions=1, predictions_every=1), Comparing()
    )

    assert list(recorded) == [1, 2, 3, 4]
    assert recorded == fresh
    assert len({json.dumps(one) for one in recorded.values()}) == 4


def test_an_error_in_words_that_no_database_takes_is_kept_all_the_same(url):
    class Odd(Shown):
        def predict(self, samples):
            raise ValueError("bad\0 byte \udc80")

    db = connect(url)
    records = Records(db, UID)
    (found,) = predicted(Odd(), range(1), CPU)

    keep(db, records.predicted([vars(found)], run_uid=UID, trial_number=3, epoch=0, step=0))

    assert records.predictions(3)[0]["error"] == r"ValueError: bad\0 byte \udc80"


def test_one_failing_sample_is_its_error_and_the_others_are_kept():
    found = predicted(Shown(bad=1), range(8), CPU)

    assert [sample.sample for sample in found] == [0, 1, 2, 3, 4]
    assert [sample.error for sample in found] == [
        None,
        "ZeroDivisionError: no such thing",
        None,
        None,
        None,
    ]
    assert (found[1].kind, found[1].prediction, found[1].score) == ("error", None, None)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (object(), "TypeError: prediction holds a object; keep numbers, texts, lists, tensors"),
        ([0.0] * 50_000, "ValueError: a sample of 244 kB is not kept (64 kB at most)"),
    ],
)
def test_what_cannot_be_kept_is_an_error(given, error):
    class Odd(Shown):
        def predict(self, samples):
            return [Prediction("x", 1, 2, given, 3.0) for _ in samples]

    assert [sample.error for sample in predicted(Odd(), range(2), CPU)] == [error, error]


def test_what_is_no_prediction_is_an_error():
    class Odd(Shown):
        def predict(self, samples):
            return [1.0 for _ in samples]

    assert "write Prediction(...)" in predicted(Odd(), range(1), CPU)[0].error


def test_values_become_plain():
    given = {"a": torch.tensor([1, 2]), 3: (math.nan, -math.inf, None, True), "t": "x\0y"}

    assert plain(given, "x") == {"a": [1, 2], "3": ["nan", "-inf", None, True], "t": "x\\0y"}


@pytest.mark.parametrize(
    ("name", "options", "params"),
    [
        ("ris_covariance", {"installation": "fixed"}, {"batch": 64, "dropout": 0.2}),
        ("arc_prompt", None, {"cache_interval": 2, "lr_agent": 3e-3}),
    ],
)
@pytest.mark.parametrize("every", [None, 3])
def test_weights_are_the_same_to_the_bit_with_and_without_the_recorder(
    name, options, params, every
):
    objective = load(name)
    defaults = {key: option.default for key, option in objective.options.items()}
    context = Context(
        device=CPU,
        size="unit",
        epochs=2,
        seed=3,
        problem_seed=objective.problem_seed("unit"),
        options=options or defaults,
    )
    trained, logs = [], []
    for count in (0, 8):
        torch.manual_seed(3)
        task = objective.build({**objective.defaults("wide"), **params}, context)
        log = Kept()
        log.on_predictions = lambda samples, *, epoch, step, log=log: log.samples.update(
            {step: samples}
        )
        trial.train(
            task,
            plan(metric=objective.metric, predictions=count, predictions_every=every),
            log,
        )
        trained.append(weights(task))
        logs.append(log)

    assert torch.equal(*trained)
    assert [epoch.flat() for epoch in logs[0].epochs] == [epoch.flat() for epoch in logs[1].epochs]
    assert len(logs[1].samples) == (3 if every is None else 1 + 2 * task.steps_per_epoch // 3)
    kept = logs[1].samples[0]
    assert len(kept) == 8 and not any(sample.error for sample in kept)


class Speaking(Task):
    """A language model that is trained on counting, and generates in validation."""

    steps_per_epoch = 2

    def __init__(self) -> None:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        self.model = Qwen2ForCausalLM(Qwen2Config(vocab_size=11, **sizes, **heads))
        self.modules: dict[str, nn.Module] = {"model": self.model}
        from objectives import Group

        self.groups = [Group(name="all", parameters=list(self.model.parameters()), lr=1e-3)]
        self.dtypes: set[torch.dtype] = set()

    def batch(self, step):
        return torch.arange(8).repeat(2, 1)

    def forward(self, batch):
        return self.model(input_ids=batch).logits

    def loss(self, outputs, batch):
        from objectives import Term

        flat = outputs[:, :-1].flatten(0, 1)
        return {"next": Term(nn.functional.cross_entropy(flat, batch[:, 1:].flatten()))}

    def _generate(self) -> list[int]:
        given = torch.tensor([[1, 2, 3]])
        found = self.model.generate(
            given,
            max_new_tokens=4,
            do_sample=True,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        self.dtypes |= {logits.dtype for logits in found.logits}
        return found.sequences[0].tolist()

    def validate(self):
        return {"error": float(len(self._generate()))}

    def predict(self, samples):
        return [Prediction("tokens", [1, 2, 3], None, self._generate(), 0.0) for _ in samples]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_language_model_generates_in_validation_of_a_run_in_half_precision(precision):
    task, other, log = Speaking(), Speaking(), Kept()

    result = trial.train(task, plan(precision=precision, predictions=2), log)
    trial.train(other, plan(precision=precision), Log())

    assert result.value == 7.0
    assert [len(sample.prediction) for sample in log.samples[4]] == [7, 7]
    # Its weights are fp32 and no autocast is on.
    assert task.dtypes == {torch.float32}
    assert torch.equal(weights(task), weights(other))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("8", "epoch"), Recording(samples=8)),
        (("off", "epoch"), Recording(samples=0)),
        (("100", "25"), Recording(samples=100, every=25)),
        ((5, 10), Recording(samples=5, every=10)),
    ],
)
def test_flags_say_what_is_kept(given, expected):
    assert Recording.of(*given) == expected
    assert Recording.of(*expected.flags()) == expected


@pytest.mark.parametrize(
    "given", [("101", "epoch"), ("-1", "epoch"), ("many", "epoch"), ("8", "0"), ("8", "day")]
)
def test_flags_that_make_no_sense_are_refused_by_name(given):
    with pytest.raises(ConfigurationError, match="--predictions"):
        Recording.of(*given)


def saved(records: Records, step: int, run_uid: str = UID, **changes) -> None:
    one = {"sample": 0, "kind": "x", "latency_s": 0.1, "prediction": [1], **changes}
    samples = [vars(Sample(**one))]
    where = {"run_uid": run_uid, "trial_number": 3, "epoch": step, "step": step}
    keep(records._engine, records.predicted(samples, **where))


def test_a_repeated_step_takes_the_place_of_the_first(url):
    records = Records(connect(url), UID)
    saved(records, 1, score=math.nan, input={"b": 1, "a": {"z": 1, "y": 2}})
    saved(records, 2)

    saved(records, 1, prediction=[2], input={"b": 1, "a": {"z": 1, "y": 2}})

    found = records.predictions(3)
    assert [(row["step"], row["prediction"]) for row in found] == [(1, [2]), (2, [1])]
    # As it was given: the order of names is that of the columns shown.
    assert json.dumps(found[0]["input"]) == '{"b": 1, "a": {"z": 1, "y": 2}}'
    assert records.predictions(4) == []


def test_what_a_later_attempt_trained_past_is_not_shown(url):
    records = Records(connect(url), UID)
    for step in (0, 3, 6):
        saved(records, step)
    for step in (4, 8):
        saved(records, step, run_uid=UID.replace("1", "5"), prediction=[2])

    found = records.predictions(3)

    assert [(row["step"], row["prediction"]) for row in found] == [
        (0, [1]),
        (3, [1]),
        (4, [2]),
        (8, [2]),
    ]


def ages(db, **days: float) -> None:
    with db.begin() as connection:
        for step, age in days.items():
            connection.execute(
                predictions.update()
                .where(predictions.c.step == int(step.removeprefix("step")))
                .values(at=sa.func.now() - sa.func.make_interval(0, 0, 0, age))
            )


def test_old_predictions_are_removed_then_the_oldest_of_too_many(url):
    db = connect(url)
    records, gone = Records(db, UID), Records(db, UID.replace("1", "2"))
    for step in range(6):
        saved(records, step, prediction=["x" * 1000])
    saved(gone, 9)
    ages(db, step0=40, step1=35, step2=3, step3=2, step4=1)
    # Each row takes little more than 1 kB.
    limits = Limits(days=30, megabytes=0.0025)

    living = sa.select(sa.literal(UID, sa.Uuid(as_uuid=False)))
    tried = collect(db, limits, living=living, dry_run=True)
    left = [row["step"] for row in records.predictions(3)]
    done = collect(db, limits, living=living)

    assert (tried.of_gone_studies, tried.too_old, tried.too_many, tried.kept) == (1, 2, 2, 2)
    assert left == [0, 1, 2, 3, 4, 5]
    assert done == tried
    assert [row["step"] for row in records.predictions(3)] == [4, 5]
    assert gone.predictions(3) == []
    assert 2000 < done.kept_bytes < 2500
    assert collect(db, limits, living=living).removed == 0


@pytest.mark.acceptance
def test_a_run_keeps_predictions_that_the_command_line_shows(program: Program, monkeypatch, capsys):
    flags = ("--objective", "ris_covariance", "--size", "unit", "--epochs_per_trial", "2")
    ran = program("run", *flags, "--n_trials", "1", "--predictions", "2", "--workers", "1")
    assert ran.returncode == 0, ran.stderr
    logs = "".join(path.read_text() for path in program.home.rglob("worker*.log"))
    assert "step 5: 2 predictions saved" in logs
    monkeypatch.setenv("HPO_STORAGE", program.environment["HPO_STORAGE"])

    def told(*args: str, code: int = 0) -> str:
        assert cli.main(list(args)) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    shown = told("predictions", "0")
    as_json = json.loads(told("predictions", "0", "--sample", "1", "--json"))
    as_csv = told("predictions", "0", "--csv").splitlines()

    assert "sample 1" in shown and "azimuth_deg" in shown
    assert [(row["epoch"], row["sample"]) for row in as_json] == [(0, 1), (1, 1), (2, 1)]
    assert list(as_json[0]["target"][0]) == ["azimuth_deg", "elevation_deg", "range_m"]
    assert len(as_csv) == 1 + 3 * 2
    assert study.open(program.environment["HPO_STORAGE"]).predictions(0)[1]["sample"] == 1
    for wrong, message in (
        (("predictions", "7"), "has no trial 7"),
        (("predictions", "0", "--sample", "5"), "no sample 5 of trial 0 is kept; there are 0, 1"),
        (("predictions", "0", "--csv", "--json"), "exclude each other"),
        (("run", "--predictions", "101"), "write a number up to 100, or 'off' (--predictions)"),
        (("gc", "--older_than", "-1"), "write 0 to 1,000,000 (--older_than)"),
    ):
        assert message in told(*wrong, code=2)
    figures = json.loads(told("best", "--json"))["figures"]
    assert set(figures) == {"J_db", "epsilon", "nmse", "validation_loss", "beta"}
    assert "6 predictions" in told("gc", "--older_than", "0", "--dry_run")
    collected = json.loads(told("gc", "--older_than", "0", "--json"))
    assert (collected["too_old"], collected["kept"]) == (6, 0)
    assert "no predictions of trial 0 are kept" in told("predictions", "0", code=2)


def shown(rows, capsys) -> str:
    row = {"sample": 0, "kind": "grid", "error": None, "input": [[1]], "target": [[2]]}
    print_predictions([{**row, "prediction": [[3]], "score": 0.5, **one} for one in rows])
    return capsys.readouterr().out


def test_grids_are_shown_as_cells_beside_the_wanted_one(capsys):
    text = shown(
        [
            {"epoch": 3, "step": 12},
            {"epoch": 4, "step": 16, "score": None},
            {"epoch": 5, "step": 20, "prediction": [[2, 2]]},
            {"epoch": 6, "step": 24, "kind": "error", "error": "ValueError: no"},
        ],
        capsys,
    )

    for part in ("input", "target", "epoch 3: 0.50", "epoch 4: -", "epoch 6: ValueError: no"):
        assert part in text
    assert "epoch 5: 0.50 (other size)" in text


def test_records_between_the_ends_of_epochs_are_named_by_their_steps(capsys):
    text = shown([{"epoch": step // 4, "step": step} for step in (0, 7, 14)], capsys)

    assert "step 7: 0.50" in text and "epoch" not in text
