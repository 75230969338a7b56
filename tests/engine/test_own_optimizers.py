"""Optimizers and schedulers of other people: what they find and leave is what training uses."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.errors import ObjectiveError, StopRequested
from hpo.task.build import load
from objectives import Group
from tests.support.toys import CPU, Log, ToyTask, weights


def plan(tmp_path=None, **changes) -> Plan:
    settings = {"epochs": 3, "precision": "fp32", "device": CPU, "metric": "error"}
    checkpoint = tmp_path / "trial.pt" if tmp_path is not None else None
    return Plan(**{**settings, "checkpoint": checkpoint, **changes})


def rate(optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


class ScheduleFree(torch.optim.Optimizer):
    """SGD without a schedule (Defazio et al., 2024): trains y = (1 − β) z + β x, evaluates x."""

    def __init__(self, params, lr: float, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "train_mode": False})

    def _each(self):
        for group in self.param_groups:
            for p in group["params"]:
                yield group, p, self.state[p]

    @torch.no_grad()
    def eval(self) -> None:
        for group, p, state in self._each():
            if group["train_mode"] and "z" in state:
                p.lerp_(state["z"], 1 - 1 / group["beta"])
        for group in self.param_groups:
            group["train_mode"] = False

    @torch.no_grad()
    def train(self) -> None:
        for group, p, state in self._each():
            if not group["train_mode"] and "z" in state:
                p.lerp_(state["z"], 1 - group["beta"])
        for group in self.param_groups:
            group["train_mode"] = True

    @torch.no_grad()
    def step(self, closure=None) -> None:
        if not self.param_groups[0]["train_mode"]:
            raise RuntimeError("call train() before step()")
        for group, p, state in self._each():
            z = state.setdefault("z", p.clone())
            share = 1 / (group["k"] + 1)
            p.lerp_(z, share)
            p.add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - share) - 1))
            z.sub_(p.grad, alpha=group["lr"])
        for group in self.param_groups:
            group["k"] += 1


class Own(ToyTask):
    """A toy whose optimizer, and whose calls of a scheduler, are given."""

    def __init__(self, make, *, scheduler=None, step_in=None, saves=True, **how) -> None:
        super().__init__(**{"dropout": 0.0, "clip": math.inf, **how})
        self.own = make([{"params": list(g.parameters), "lr": g.lr} for g in self.groups])
        self.scheduler = None if scheduler is None else scheduler(self.own)
        self.step_in, self.saves = step_in, saves
        self.seen: list[float] = []
        self.validated: list[torch.Tensor] = []

    def schedule(self, progress):
        return 1.0

    def optimizer(self):
        return self.own

    def batch(self, step):
        if self.step_in == "batch" and step:
            self.scheduler.step()
        return super().batch(step)

    def monitor(self):
        self.seen.append(rate(self.own))
        if self.step_in == "monitor":
            self.scheduler.step()
        return {}

    def validate(self):
        self.validated.append(weights(self))
        found = super().validate()
        if self.step_in == "validate":
            self.scheduler.step(1.0)
        return found

    def state_dict(self):
        return self.scheduler.state_dict() if self.scheduler and self.saves else {}

    def load_state_dict(self, state):
        if state:
            self.scheduler.load_state_dict(state)


def sgd(groups):
    return torch.optim.SGD(groups, lr=1e-2, momentum=0.9)


def written_out(task: Own, steps: int) -> torch.Tensor:
    """The same training in plain torch."""
    task.optimizer()
    for step in range(steps):
        batch = task.batch(step)
        task.own.zero_grad()
        terms = task.loss(task.forward(batch), batch)
        sum(term.weight * term.value for term in terms.values()).backward()
        task.own.step()
        task.monitor()
        if (step + 1) % task.steps_per_epoch == 0:
            with torch.no_grad():
                task.validate()
    return weights(task)


SCHEDULERS = {
    "LambdaLR in batch": ("batch", lambda o: LambdaLR(o, lambda k: 1 / (1 + k))),
    "StepLR in monitor": ("monitor", lambda o: StepLR(o, 7, gamma=0.3)),
    "OneCycleLR in monitor": ("monitor", lambda o: OneCycleLR(o, max_lr=0.05, total_steps=40)),
    "ReduceLROnPlateau in validate": ("validate", lambda o: ReduceLROnPlateau(o, patience=0)),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_of_torch_has_the_rates_that_it_has_in_plain_torch(name):
    step_in, make = SCHEDULERS[name]
    plain, task = (Own(sgd, scheduler=make, step_in=step_in) for _ in range(2))
    # The engine validates before the first step.
    plain.validate()
    expected = written_out(plain, 30)

    engine.train(task, plan(), Log())

    assert task.seen == plain.seen
    assert len(set(task.seen)) > 2
    # A rate is rounded to fp32 for a step.
    torch.testing.assert_close(weights(task), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop_after", [1, 10, 14, 29])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedulers_rates_survive_an_interruption(name, stop_after, tmp_path):
    step_in, make = SCHEDULERS[name]
    whole = Own(sgd, scheduler=make, step_in=step_in)
    expected = engine.train(whole, plan(), Log())
    first = Own(sgd, scheduler=make, step_in=step_in)
    with pytest.raises(StopRequested):
        engine.train(first, plan(tmp_path), Log(stop_after=stop_after))
    resumed = Own(sgd, scheduler=make, step_in=step_in, seed=5)

    result = engine.train(resumed, plan(tmp_path), Log())

    assert result.value == expected.value
    assert first.seen + resumed.seen == whole.seen
    assert torch.equal(weights(resumed), weights(whole))


def test_the_schedule_of_the_task_comes_on_top_of_a_scheduler():
    used: list[float] = []

    class Scheduled(Own):
        def schedule(self, progress):
            return 1.0 - progress

    task = Scheduled(sgd, scheduler=lambda o: StepLR(o, 10, gamma=0.1), step_in="monitor")
    task.own.register_step_pre_hook(lambda own, *_: used.append(rate(own)))

    engine.train(task, plan(), Log())

    expected = [1e-2 * 0.1 ** (k // 10) * (1 - k / 30) for k in range(30)]
    assert used == pytest.approx(expected, rel=1e-6)


def test_a_rate_that_is_changed_within_the_step_stays_changed():
    task = Own(sgd)
    task.schedule = lambda progress: 0.5
    task.own.register_step_post_hook(
        lambda own, *_: own.param_groups[0].update(lr=0.9 * own.param_groups[0]["lr"])
    )

    engine.train(task, plan(epochs=1), Log())

    assert rate(task.own) == pytest.approx(1e-2 * 0.9**10)


def test_a_scheduler_of_rates_from_the_start_may_step_within_the_step():
    used: list[float] = []
    task = Own(sgd, scheduler=lambda o: LambdaLR(o, lambda k: 0.9**k))
    task.schedule = lambda progress: 0.5
    task.own.register_step_post_hook(lambda *_: task.scheduler.step())
    task.own.register_step_pre_hook(lambda own, *_: used.append(rate(own)))

    engine.train(task, plan(epochs=1), Log())

    assert used == pytest.approx([0.5 * 1e-2 * 0.9**k for k in range(10)])


def test_a_scheduler_that_is_made_with_the_optimizer_is_restored_with_its_task():
    class Late(Own):
        def optimizer(self):
            self.scheduler = StepLR(self.own, 10)
            return self.own

    task = Late(sgd)
    task.optimizer()
    task.scheduler.step()
    other = Late(sgd)
    modules = {name: module.state_dict() for name, module in task.modules.items()}

    load(other, modules, task.state_dict())

    assert other.scheduler.last_epoch == 1


def test_a_rate_that_is_a_tensor_is_set_in_place():
    lr = torch.tensor(0.5)
    task = Own(lambda groups: torch.optim.SGD([g["params"][0] for g in groups], lr=lr))
    task.groups = [Group(name="all", parameters=[g.parameters[0] for g in task.groups], lr=0.1)]

    trial = engine._Trial(task, plan(schedule=lambda progress: 1.0 - progress))
    mine = task.own.param_groups[0]["lr"]
    for step in range(4):
        trial.train_step(task.batch(step))

    assert task.own.param_groups[0]["lr"] is mine
    assert float(mine) == pytest.approx(0.1)
    assert float(lr) == 0.5


def test_a_checkpoint_of_an_earlier_version_goes_on_with_the_rates_of_the_groups(tmp_path):
    expected = engine.train(Own(sgd), plan(), Log())
    with pytest.raises(StopRequested):
        engine.train(Own(sgd), plan(tmp_path), Log(stop_after=14))
    state = torch.load(tmp_path / "trial.pt", weights_only=True)
    state["optimizer"] = state["optimizer"]["optimizer"]
    for group in state["optimizer"]["param_groups"]:
        group["lr"] = 1e-9
    torch.save(state, tmp_path / "trial.pt")

    assert engine.train(Own(sgd), plan(tmp_path), Log()).value == expected.value


def test_a_schedule_free_optimizer_trains_y_and_validates_x():
    task = Own(lambda groups: ScheduleFree(groups, lr=1e-2))
    plain = Own(lambda groups: ScheduleFree(groups, lr=1e-2))
    plain.own.train()
    expected = []
    for epochs in range(1, 4):
        for step in range(10 * epochs - 10, 10 * epochs):
            batch = plain.batch(step)
            plain.own.zero_grad()
            terms = plain.loss(plain.forward(batch), batch)
            sum(term.weight * term.value for term in terms.values()).backward()
            plain.own.step()
        plain.own.eval()
        expected.append(weights(plain))
        plain.own.train()

    result = engine.train(task, plan(), Log())

    # fp32 rounding over 30 steps of at most 1e-2.
    for seen, x in zip(task.validated[1:], expected, strict=True):
        torch.testing.assert_close(seen, x, rtol=1e-4, atol=1e-5)
    # The weights that remain, of which `train` makes a file, are those that were validated.
    assert torch.equal(weights(task), task.validated[-1])
    assert result.value == pytest.approx(task.validate()["error"])


@pytest.mark.parametrize("stop_after", [1, 10, 14, 30])
def test_a_schedule_free_training_that_is_interrupted_ends_as_if_it_had_not_been(
    stop_after, tmp_path
):
    whole = Own(lambda groups: ScheduleFree(groups, lr=1e-2))
    expected = engine.train(whole, plan(), Log())
    if stop_after < 30:
        with pytest.raises(StopRequested):
            engine.train(
                Own(lambda groups: ScheduleFree(groups, lr=1e-2)),
                plan(tmp_path),
                Log(stop_after=stop_after),
            )
    else:
        engine.train(Own(lambda groups: ScheduleFree(groups, lr=1e-2)), plan(tmp_path), Log())
    resumed = Own(lambda groups: ScheduleFree(groups, lr=1e-2), seed=5)

    result = engine.train(resumed, plan(tmp_path), Log())

    assert result.value == expected.value
    assert torch.equal(weights(resumed), weights(whole))


def test_predictions_between_validations_disturb_no_schedule_free_training():
    class Predicting(Own):
        def predict(self, samples):
            self.modes.append(self.own.param_groups[0]["train_mode"])
            return ()

    ended = []
    for every in (None, 3):
        task = Predicting(lambda groups: ScheduleFree(groups, lr=1e-2))
        task.modes = []
        engine.train(task, plan(predictions=1, predictions_every=every), Log())
        ended.append(weights(task))
        assert task.modes and not any(task.modes)

    assert torch.equal(*ended)


def test_an_optimizer_with_averages_of_its_own_is_not_averaged_again():
    task = Own(lambda groups: ScheduleFree(groups, lr=1e-2))

    result = engine.train(task, plan(ema_decay=0.9), Log())

    assert result.averaged is None
    assert torch.equal(weights(task), task.validated[-1])


class Both:
    """Muon for matrices and AdamW for the rest, in one: no torch.optim.Optimizer."""

    def __init__(self, *optimizers) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self):
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, closure=None):
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none=True):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self):
        return {"each": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state):
        for optimizer, one in zip(self.optimizers, state["each"], strict=True):
            optimizer.load_state_dict(one)


class MuonTask(ToyTask):
    def __init__(self, **how) -> None:
        super().__init__(dropout=0.0, **how)
        every = [p for module in self.modules.values() for p in module.parameters()]
        matrices, rest = ([p for p in every if (p.ndim == 2) is is_2d] for is_2d in (True, False))
        self.groups = [
            Group(name="matrices", parameters=matrices, lr=2e-2),
            Group(name="rest", parameters=rest, lr=1e-3),
        ]

    def optimizer(self):
        matrices, rest = self.groups
        return Both(
            torch.optim.Muon(matrices.parameters, lr=2e-2),
            torch.optim.AdamW(rest.parameters, lr=1e-3),
        )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_muon_and_adamw_in_one_object_learn_and_resume_to_the_bit(precision, tmp_path):
    log, whole = Log(), MuonTask()
    expected = engine.train(whole, plan(precision=precision), log)
    with pytest.raises(StopRequested):
        engine.train(MuonTask(), plan(tmp_path, precision=precision), Log(stop_after=14))
    resumed = MuonTask(seed=5)

    result = engine.train(resumed, plan(tmp_path, precision=precision), Log())

    assert result.value == expected.value < 0.9 * log.epochs[0].metrics["error"]
    assert torch.equal(weights(resumed), weights(whole))


def sparse(task):
    task.body = torch.nn.Sequential(torch.nn.Embedding(9, 8, sparse=True))
    task.modules = {"body": task.body, "head": task.head}
    task.groups = [
        Group(name="body", parameters=list(task.body.parameters()), lr=1e-2),
        Group(name="head", parameters=list(task.head.parameters()), lr=1e-2),
    ]
    task.validate = lambda: {"error": 1.0}
    task.forward = lambda batch: task.head(task.body(batch["x"].abs().sum(1).long() % 9))
    return Both(
        torch.optim.SparseAdam(task.groups[0].parameters),
        torch.optim.Adam(task.groups[1].parameters),
    )


def copies(task):
    parameters = [p.detach().clone().requires_grad_() for g in task.groups for p in g.parameters]
    return torch.optim.SGD(parameters, lr=0.1)


REFUSED = {
    "by a closure": lambda task: torch.optim.LBFGS(task.groups[0].parameters),
    "steps other parameters than the groups'": copies,
    "has 1 parameter groups and the task 2": lambda task: torch.optim.SGD(
        [p for g in task.groups for p in g.parameters], lr=0.1
    ),
    "gave a list, no torch.optim.Optimizer, and without step": lambda task: [
        torch.optim.SGD(task.groups[0].parameters)
    ],
    "'body.0' has sparse gradients": sparse,
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_an_optimizer_that_cannot_be_used_is_refused_in_words_of_the_objective(sentence):
    task = ToyTask(clip=math.inf)
    own = REFUSED[sentence](task)
    task.optimizer = lambda: own

    with pytest.raises(ObjectiveError, match=sentence):
        engine.train(task, plan(), Log())


def test_a_group_follows_a_schedule_of_its_own():
    task = ToyTask()
    body, head = task.groups
    task.groups = [
        body,
        Group(name="head", parameters=head.parameters, lr=1e-2, schedule=lambda p: float(p >= 0.5)),
    ]
    trial = engine._Trial(task, plan())
    rates, heads = [], []
    for step in range(30):
        heads.append(task.head.weight.detach().clone())
        trial.train_step(task.batch(step))
        rates.append([float(g["lr"]) for g in trial._stepper.optimizer.param_groups])

    assert [r[0] for r in rates] == pytest.approx([1e-2 * (1 - 0.9 * k / 30) for k in range(30)])
    assert [r[1] for r in rates] == pytest.approx([0.0] * 15 + [1e-2] * 15)
    assert torch.equal(heads[15], heads[0])
    assert not torch.equal(heads[16], heads[15])


@pytest.mark.parametrize("factor", [math.nan, -1.0, 0.0])
def test_a_groups_schedule_that_is_no_factor_is_refused_with_its_name(factor):
    task = ToyTask()
    body, head = task.groups
    wrong = Group(name="head", parameters=head.parameters, lr=1e-2, schedule=lambda p: factor)
    task.groups = [body, wrong]

    with pytest.raises(ObjectiveError, match="group 'head': schedule"):
        engine.train(task, plan(), Log())


def test_a_plans_schedule_replaces_those_of_groups():
    task = ToyTask()
    task.groups = [
        Group(name=g.name, parameters=g.parameters, lr=g.lr, schedule=lambda p: 0.1)
        for g in task.groups
    ]

    trial = engine._Trial(task, plan(schedule=lambda progress: 0.5))
    trial.train_step(task.batch(0))

    assert rate(trial._stepper.optimizer) == pytest.approx(0.5e-2)
