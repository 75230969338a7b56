"""The second objective: gradients that arrive, terms that are what they are called, no leakage."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from hpo.database.connection import connect
from hpo.database.storage import open_storage
from hpo.engine import trial
from hpo.engine.plan import Plan
from hpo.errors import ConfigurationError, ObjectiveError, StopRequested
from hpo.study.join import prepare_study
from hpo.study.request import RunRequest
from hpo.task.forward import loss_terms, total
from models.arc import language_model, loss
from models.arc.encoding import PAD, SYMBOLS
from models.arc.problem import _others
from models.arc.prompt_net import Agent, Answer, FeatureWriter, Policy, _flipped
from objectives import Context, Term
from objectives.arc_prompt import ArcPromptTask, objective
from tests.support.toys import CPU, Log, weights

DEFAULTS = {name: option.default for name, option in objective.options.items()}
METRIC = objective.metric


def build(params=None, *, seed: int = 3, epochs: int = 3, **options) -> ArcPromptTask:
    torch.manual_seed(seed)
    context = Context(
        device=CPU,
        size="unit",
        epochs=epochs,
        seed=seed,
        problem_seed=0,
        options={**DEFAULTS, **options},
    )
    return objective.build(
        {**objective.defaults("wide"), "lr_agent": 3e-3, **(params or {})}, context
    )


def plan(tmp_path=None, **changes) -> Plan:
    settings = {"epochs": 3, "precision": "fp32", "device": CPU, "metric": METRIC}
    checkpoint = tmp_path / "trial.pt" if tmp_path is not None else None
    return Plan(**{**settings, "checkpoint": checkpoint, **changes})


def backward(task: ArcPromptTask, step: int = 0, precision: str = "fp32") -> dict[str, float]:
    """The gradient norm of each group after one step's backward."""
    for group in task.groups:
        for parameter in group.parameters:
            parameter.grad = None
    total(loss_terms(task, task.batch(step), device=CPU, precision=precision)).backward()
    return {
        group.name: math.sqrt(
            sum(float(p.grad.square().sum()) for p in group.parameters if p.grad is not None)
        )
        for group in task.groups
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_group_has_a_gradient_at_the_first_batch(precision):
    norms = backward(build(), precision=precision)

    assert set(norms) == {"agent", "language_model", "policy"}
    assert all(norm > 1e-4 for norm in norms.values()), norms


def test_every_parameter_of_the_three_networks_has_a_gradient():
    task = build({"refinements": 3})
    backward(task)

    without = [
        f"{key}.{name}"
        for key, module in task.modules.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]

    # The policy's trunk hears of its mean only once that is not zero any more.
    assert without == []


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_all_three_networks_train_in_every_precision(precision):
    task = build()
    before = {name: weights_of(module) for name, module in task.modules.items()}

    result = trial.train(task, plan(precision=precision), Log())

    assert math.isfinite(result.value)
    assert result.skipped <= 4  # the scaler's search
    for name, module in task.modules.items():
        assert not torch.equal(weights_of(module), before[name]), name


def terms_at(task: ArcPromptTask, step: int) -> dict[str, Term]:
    return loss_terms(task, task.batch(step), device=CPU, precision="fp32")


def weights_of(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_the_baseline_without_a_gradient_costs_the_agent_none():
    # autocast keeps casts of weights: one made under no_grad would silence the agent.
    with_policy = backward(build(), precision="bf16")["agent"]
    without = backward(build({"rl_weight": 0.0}), precision="bf16")["agent"]

    # The action's noise alone tells them apart.
    assert with_policy == pytest.approx(without, rel=0.5)


def test_rl_weight_0_leaves_the_policy_out():
    task = build({"rl_weight": 0.0})

    terms = terms_at(task, 0)

    assert set(terms) == {"risk", "ambiguity", "size"}
    assert "policy" not in task.modules
    assert [group.name for group in task.groups] == ["agent", "language_model"]


def test_the_policy_learns_from_its_probability_and_its_baseline_from_the_reward():
    torch.manual_seed(0)
    policy, prompt_BP = Policy(prompt=4, width=8), torch.randn(16, 4)
    action = policy(prompt_BP)
    advantage_B = torch.linspace(-1, 1, 16)

    (-(advantage_B * action.log_prob_B).mean()).backward()

    assert policy.mean.weight.grad.abs().sum() > 0
    assert policy.narrowness.grad.abs().sum() > 0
    assert policy.value.weight.grad is None


def test_actions_that_paid_off_become_likelier():
    torch.manual_seed(0)
    policy, prompt_BP = Policy(prompt=3, width=8), torch.randn(1, 3).expand(256, 3)
    wanted_P = torch.tensor([0.3, -0.3, 0.0])
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(200):
        action = policy(prompt_BP)
        reward_B = -(action.refined_BP - prompt_BP - wanted_P).square().sum(-1)
        advantage_B = reward_B - action.value_B.detach()
        optimizer.zero_grad()
        policy_term = -(advantage_B * action.log_prob_B).mean()
        (policy_term + (action.value_B - reward_B).square().mean()).backward()
        optimizer.step()

    step_P = (policy.eval()(prompt_BP).refined_BP - prompt_BP)[0]

    # Half of the way there at least, in each direction.
    assert (step_P - wanted_P).abs().max() < 0.15
    assert torch.equal(policy(prompt_BP).refined_BP, policy(prompt_BP).refined_BP)


def test_between_refreshes_the_language_model_has_no_gradient_and_says_so():
    task = build({"cache_interval": 3})
    norms = []

    for step in range(6):
        norms.append(backward(task, step)["language_model"])

    assert [norm > 0 for norm in norms] == [True, False, False, True, False, False]
    assert [bool(task.idle(step)) for step in range(6)] == [norm == 0 for norm in norms]
    assert task.idle(1) == ("language_model",)


def test_a_prompt_that_an_overflow_spoilt_is_not_kept():
    task = build({"cache_interval": 3})
    task.forward(task.batch(0))
    with torch.no_grad():
        kept = task._cached_BP.clone()
        task._writer.projection.weight.mul_(math.inf)
    task.forward(task.batch(3))
    with torch.no_grad():
        task._writer.projection.weight.fill_(0.1)

    outputs = task.forward(task.batch(4))

    assert torch.isfinite(kept).all()
    assert torch.isfinite(outputs.answer.cells_XVSS).all()


@pytest.mark.parametrize("stop_after", [2, 6, 9])
@pytest.mark.parametrize("interval", [1, 5])
def test_an_interrupted_trial_resumes_with_cache_baseline_and_curriculum(
    stop_after, interval, tmp_path
):
    params = {"cache_interval": interval}
    whole = build(params)
    expected = trial.train(whole, plan(), Log())
    with pytest.raises(StopRequested):
        trial.train(build(params), plan(tmp_path), Log(stop_after=stop_after))
    torch.manual_seed(99)
    resumed = build(params)

    result = trial.train(resumed, plan(tmp_path), Log())

    assert result.value == expected.value
    assert torch.equal(weights(resumed), weights(whole))


def test_the_curriculum_is_on_the_size_term_alone():
    task = build({"size_early": 0.6, "size_late": 0.3, "rl_weight": 0.3})
    steps = 3 * task.steps_per_epoch
    early, late = (
        {name: term.weight for name, term in terms_at(task, step).items()}
        for step in (0, steps - 1)
    )

    assert {name for name in early if early[name] != late[name]} == {"size"}
    assert late["size"] / early["size"] == pytest.approx(0.5)
    assert early["risk"] == pytest.approx(0.7)
    assert early["policy"] == early["value"] == pytest.approx(0.3)


def answers(seed: int = 0) -> tuple[Answer, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn(3, 10, 4, 4, generator=generator)
    target = torch.randint(0, 10, (3, 4, 4), generator=generator)
    target[0, 2:], target[1, :, 3:] = PAD, PAD
    return Answer(cells, torch.randn(3, 2, 4, generator=generator)), target


def test_risk_weighs_each_wrong_cell_double():
    answer, target = answers()
    weighted = weight = 0.0
    for x, row, column in (target != PAD).nonzero().tolist():
        logits, colour = answer.cells_XVSS[x, :, row, column], target[x, row, column]
        w = 1.0 if int(logits.argmax()) != colour else 0.5
        weighted += w * float(functional.cross_entropy(logits, colour))
        weight += w

    found = loss.risk(answer, target)

    assert float(found) == pytest.approx(weighted / weight, rel=1e-5)


def test_ambiguity_is_the_entropy_between_certainty_and_chance():
    answer, target = answers()
    certain = answer._replace(cells_XVSS=1e3 * functional.one_hot(target % 10, 10).movedim(-1, 1))
    even = answer._replace(cells_XVSS=torch.zeros(3, 10, 4, 4))

    assert float(loss.ambiguity(certain, target)) == pytest.approx(0.0, abs=1e-6)
    assert float(loss.ambiguity(even, target)) == pytest.approx(math.log(10), rel=1e-6)


def test_the_metric_counts_changed_cells_alone_and_copying_scores_0():
    given = torch.tensor([[[1, 2], [PAD, PAD]]])
    target = torch.tensor([[[1, 3], [4, 5]]])

    copied = loss.changed_accuracy(given, given, target)
    half = loss.changed_accuracy(torch.tensor([[[9, 3], [4, 9]]]), given, target)

    assert copied.tolist() == [0.0]
    assert half.tolist() == pytest.approx([2 / 3])
    assert loss.cell_accuracy(given, target).tolist() == [0.25]


def test_the_answer_depends_on_the_query_only_by_its_input():
    task = build({"rl_weight": 0.0})
    batch = task.batch(0)
    other = batch._replace(target_XSS=batch.target_XSS.roll(1, 0), size_X2=batch.size_X2.roll(1, 0))

    one, two = task.forward(batch), task.forward(other)

    assert torch.equal(one.answer.cells_XVSS, two.answer.cells_XVSS)
    assert torch.equal(one.answer.size_X2S, two.answer.size_X2S)


def test_a_query_does_not_reach_the_prompt():
    task = build()
    batch = task.batch(0)
    inputs = torch.zeros_like(batch.input_XSS)

    one, two = (task._prompt(b) for b in (batch, batch._replace(input_XSS=inputs)))

    assert torch.equal(one, two)


def test_mirrored_views_turn_the_grid_within_its_own_size():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    # A canvas of 4, a grid of 3×4 in it.
    canvas = functional.pad(image, (0, 0, 0, 1), value=-1)

    flipped = _flipped(canvas, torch.tensor([3]), dim=2)

    assert torch.equal(flipped[0, 0, :3], image[0, 0].flip(0))
    assert (flipped[0, 0, 3] == -1).all()


def test_an_agent_that_writes_nothing_new_begins_near_a_copy():
    torch.manual_seed(0)
    agent = Agent(canvas=4, prompt=4, channels=8, mask_floor=0.0)
    with torch.no_grad():
        agent.write.bias[0] = -20.0
    given = torch.randint(0, 10, (2, 4, 4))

    answer = agent(given, torch.full((2, 2), 4), torch.randn(2, 4), steps=2)

    assert torch.equal(answer.colours(), given)


def test_counted_features_tell_what_became_of_which_colour():
    task = build(prompt="features")
    writer = task.modules["writer"]
    symbols_BT = task.batch(0).symbols_BT

    assert isinstance(writer, FeatureWriter)
    assert writer(symbols_BT).shape == (2, 8)
    swapped = symbols_BT.clone()
    swapped[:, 1] = (swapped[:, 1] - 11 + 1) % 10 + 11
    assert not torch.equal(writer(symbols_BT), writer(swapped))


@pytest.mark.parametrize("architecture", language_model.ARCHITECTURES)
def test_a_language_model_is_loaded_from_its_folder_in_the_dtype_that_is_said(
    architecture, tmp_path
):
    torch.manual_seed(0)
    model = language_model.new_model(
        architecture=architecture, vocabulary=len(SYMBOLS), width=16, layers=1, positions=64
    )
    model.to(torch.bfloat16).save_pretrained(tmp_path)

    task = build(qwen_path=str(tmp_path))
    loaded = task.modules["writer"].language_model

    # transformers would take the checkpoint's bfloat16 by itself.
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter.float()), name
    for word, dtype in language_model.DTYPES.items():
        found = language_model.load_model(tmp_path, dtype=word)
        assert {p.dtype for p in found.parameters()} == {dtype}
    assert math.isfinite(trial.train(task, plan(epochs=1), Log()).value)


@pytest.mark.parametrize("word", ["half", "bf16", "float", "auto", "FLOAT16", ""])
def test_a_word_that_is_no_dtypes_is_refused(word, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))

    with pytest.raises(ValueError, match="is none of float32, float16, bfloat16"):
        language_model.load_model(tmp_path, dtype=word)
    assert word not in objective.options["qwen_dtype"].choices


def test_folders_that_hold_no_known_model_are_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        language_model.check_folder(tmp_path, SYMBOLS)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="no configuration of a model"):
        language_model.check_folder(tmp_path, SYMBOLS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="of the type 'llama'; use one of qwen2, qwen3"):
        language_model.check_folder(tmp_path, SYMBOLS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 10}))
    with pytest.raises(ValueError, match="holds no weights"):
        language_model.check_folder(tmp_path, SYMBOLS)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="knows 10 tokens, and 23 are wanted"):
        language_model.check_folder(tmp_path, SYMBOLS)
    with pytest.raises(ValueError, match="cannot be loaded"):
        language_model.load_model(tmp_path, dtype="float32")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"the tokenizer in .* cannot be read"):
        language_model.check_folder(tmp_path, SYMBOLS)


def settle(precision: str = "fp32", **options):
    return objective.settle({**DEFAULTS, **options}, "unit", precision)


@pytest.mark.parametrize(
    ("dtype", "precision", "reason"),
    [
        ("float16", "fp32", "float16 cannot be trained"),
        ("float16", "fp16", "float16 cannot be trained"),
        ("bfloat16", "fp16", "under the loss scaler of fp16"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(dtype, precision, reason):
    with pytest.raises(ValueError, match=reason):
        settle(precision, qwen_dtype=dtype)
    # And by the engine, whatever an objective lets through.
    with pytest.raises(ObjectiveError, match=f"is {dtype} and trained"):
        trial.train(build(qwen_dtype=dtype), plan(precision=precision), Log())


@pytest.mark.parametrize(
    ("dtype", "frozen", "precision"),
    [
        ("float16", "yes", "fp16"),
        ("float16", "yes", "fp32"),
        ("bfloat16", "yes", "fp16"),
        ("bfloat16", "no", "bf16"),
        ("bfloat16", "no", "fp32"),
    ],
)
def test_half_precision_that_can_work_does(dtype, frozen, precision):
    options = {"qwen_dtype": dtype, "qwen_frozen": frozen}
    settle(precision, **options)
    task = build(**options)
    model = task.modules["writer"].language_model
    before = weights_of(model)

    result = trial.train(task, plan(precision=precision, epochs=1), Log())

    assert math.isfinite(result.value)
    assert torch.equal(weights_of(model), before) == (frozen == "yes")


def test_an_install_without_transformers_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(language_model.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"-e '\.\[arc\]'; or write --prompt"):
        settle()
    assert settle(prompt="features")["prompt"] == "features"


def test_the_references_are_measured():
    context = Context(device=CPU, size="unit", epochs=2, seed=0, problem_seed=0, options=DEFAULTS)
    state = torch.get_rng_state()

    found = objective.references(context)

    assert found["copying the input"] == 0.0
    assert 0.0 <= found["features only"] <= 1.0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_shuffled_prompt_is_another_tasks():
    others = _others(["a", "a", "b", "c", "b"])

    assert [("a", "a", "b", "c", "b")[i] for i in others] == ["b", "c", "a", "a", "a"]
    assert _others(["a", "a"]) == _others(["a"]) == []


def test_references_stop_when_they_are_told_to():
    context = Context(
        device=CPU,
        size="unit",
        epochs=2,
        seed=-1,
        problem_seed=0,
        options=DEFAULTS,
        must_stop=lambda: True,
    )

    with pytest.raises(InterruptedError, match="after step 0 of 8"):
        objective.references(context)


def test_validation_names_its_baselines():
    task = build()
    for module in task.modules.values():
        module.eval()

    found = task.validate()

    assert found["copying_the_input"] == 0.0
    assert {METRIC, "with_shuffled_prompts", "with_unrefined_prompts"} < set(found)
    # Cells that no rule changes are right in a copy.
    assert 0.1 < found["cell_accuracy_copying"] < 0.9


def test_a_study_that_cannot_train_is_not_created(url, tmp_path, monkeypatch):
    db = connect(url)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    for options, precision, message in (
        ({"qwen_dtype": "float16"}, "fp32", "float16 cannot be trained"),
        ({"qwen_dtype": "bfloat16"}, "fp16", "--precision bf16"),
        ({"qwen_dtype": "half"}, "fp32", "none of float32, float16, bfloat16"),
        ({"qwen_path": "nowhere"}, "fp32", "name a model's folder"),
        ({"arc_path": "tasks"}, "fp32", "a.json, line 1, column 2"),
        ({"arc_path": "nowhere"}, "fp32", "is no folder"),
    ):
        request = RunRequest(objective="arc_prompt", options=options, precision=precision)
        with pytest.raises(ConfigurationError, match=message):
            prepare_study(db, request, on_gpu=False)

    assert open_storage(db).get_all_studies() == []


def test_a_folder_is_kept_whole_and_found_again_from_another_place(url, tmp_path, monkeypatch):
    db = connect(url)
    folder = tmp_path / "tasks"
    folder.mkdir()
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    for number in range(20):
        content = {"train": [pair, pair], "test": [pair]}
        (folder / f"task{number}.json").write_text(json.dumps(content))
    request = RunRequest(objective="arc_prompt", options={"arc_path": "tasks"}, size="unit")
    monkeypatch.chdir(tmp_path)

    created = prepare_study(db, request, on_gpu=False).opened
    monkeypatch.chdir(folder)
    again = replace(request, options={"arc_path": "../tasks"})
    joined = prepare_study(db, again, on_gpu=False).opened

    assert created.config.options["arc_path"] == str(folder)
    assert joined.uid == created.uid
