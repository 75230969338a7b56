"""Solve grid tasks with an agent that a small language model writes prompts for.

    pip install -e '.[arc]'
    python -m hpo --objective arc_prompt --n_trials 20

The language model reads a task's demonstrations, never its query. A policy refines the prompt,
rewarded for a better answer. The agent, conditioned on the prompt, rewrites the query's grid. All
three train together, by one loss and one backward. The metric is the accuracy on the cells that a
task changes, for tasks of rules that are never trained on. This is an optimization workload with
baselines, not a claim to solve ARC.

Shapes: B tasks, X queries (B times some), P prompt, S side of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from math import cos, pi
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.arc import language_model
from models.arc import loss as arc_loss
from models.arc.encoding import PAD, SYMBOLS, GridBatch, encode
from models.arc.problem import SIZES, problem
from models.arc.prompt_net import Action, Agent, Answer, FeatureWriter, Policy, PromptWriter
from objectives import (
    Choice,
    Context,
    Float,
    Group,
    Int,
    Objective,
    Option,
    Params,
    Prediction,
    Task,
    Term,
)

_WARMUP = 0.05
# The size's weight is `size_early` before this share of the trial's steps, and `size_late` after.
_CURRICULUM_TURN = 0.5
# Validation holds activations of this many tasks at once.
_CHUNK = 64
# The features-only baseline trains with the solver's defaults, except for a rate that learns.
_BASELINE = {"lr_agent": 6e-3, "lr_language_model": 6e-3, "rl_weight": 0.0}


class Outputs(NamedTuple):
    """Outputs of a forward.

    Attributes:
        answer: Answer to the refined prompt.
        action: Action of the policy; None where no policy trains.
        plain_XSS: Colours of the answer to the unrefined prompt; None where no policy trains.
    """

    answer: Answer
    action: Action | None
    plain_XSS: Tensor | None


class ArcPromptTask(Task):
    """Prompt writer, policy and agent in training."""

    def __init__(self, params: Params, context: Context) -> None:
        self._params, self._context = params, context
        self._size = SIZES[context.size]
        self._problem = problem(*_key(context))
        self.steps_per_epoch = self._size.steps_per_epoch
        self._steps = context.epochs * self.steps_per_epoch
        self._writer = self._build_writer().to(context.device)
        self._policy = Policy(prompt=self._size.prompt, width=self._size.width).to(context.device)
        self._agent = Agent(
            canvas=self._problem.source.canvas,
            prompt=self._size.prompt,
            channels=self._size.channels,
            mask_floor=params["mask_floor"],
        ).to(context.device)
        self._trains_policy = params["rl_weight"] > 0
        self.modules: Mapping[str, nn.Module] = {"writer": self._writer, "agent": self._agent}
        clip = params["clip"]
        writer = [p for p in self._writer.parameters() if p.requires_grad]
        self.groups = [
            Group(
                name="agent",
                parameters=list(self._agent.parameters()),
                lr=params["lr_agent"],
                clip=clip,
            ),
            Group(
                name="language_model", parameters=writer, lr=params["lr_language_model"], clip=clip
            ),
        ]
        if self._trains_policy:
            self.modules = {**self.modules, "policy": self._policy}
            policy = list(self._policy.parameters())
            self.groups.append(
                Group(name="policy", parameters=policy, lr=params["lr_agent"], clip=clip)
            )
        # The cache holds the prompts of one block of steps, without their graph.
        self._cached_block, self._cached_BP = -1, torch.zeros(0)
        self._monitor: dict[str, Tensor] = {}

    def _build_writer(self) -> nn.Module:
        size, options = self._size, self._context.options
        if options["prompt"] == "features":
            return FeatureWriter(prompt=size.prompt)
        folder = Path(options["qwen_path"]) if options["qwen_path"] else None
        dtype = options["qwen_dtype"]
        if folder is None:
            model = language_model.new_model(
                architecture=options["qwen_architecture"],
                vocabulary=len(SYMBOLS),
                width=size.width,
                layers=size.layers,
                positions=size.demonstrations * (2 * self._problem.source.canvas**2 + 1),
            ).to(language_model.DTYPES[dtype])
        else:
            model = language_model.load_model(folder, dtype=dtype)
        if options["qwen_frozen"] == "yes":
            model.requires_grad_(False)
        tokens = language_model.symbol_ids(folder, SYMBOLS)
        return PromptWriter(model, tokens, prompt=size.prompt)

    def schedule(self, progress: float) -> float:
        if progress < _WARMUP:
            return (progress + 1e-2) / (_WARMUP + 1e-2)
        return (1 + cos(pi * (progress - _WARMUP) / (1 - _WARMUP))) / 2

    def batch(self, step: int) -> GridBatch:
        tasks = self._problem.source.training(
            self._size.batch,
            self._size.queries,
            block=self._generator("demonstrations", self._block(step)),
            query=self._generator("queries", step),
        )
        canvas, device = self._problem.source.canvas, self._context.device
        return encode(tasks, canvas=canvas, device=device, step=step)

    def _block(self, step: int) -> int:
        """Number of a step's block, whose steps share their demonstrations."""
        return step // int(self._params["cache_interval"])

    def _generator(self, purpose: str, index: int) -> np.random.Generator:
        context = self._context
        number = ("demonstrations", "queries").index(purpose)
        # numpy rejects a negative seed.
        seed = context.seed % 2**64
        return np.random.default_rng((context.problem_seed, seed, number, index))

    def idle(self, step: int) -> Collection[str]:
        is_first = step % self._params["cache_interval"] == 0
        return () if is_first else ("language_model",)

    def forward(self, batch: GridBatch) -> Outputs:
        prompt_BP = self._prompt(batch)
        if not self._trains_policy:
            return Outputs(self._answer(batch, prompt_BP), None, None)
        action = self._policy(prompt_BP)
        answer = self._answer(batch, action.refined_BP)
        # This must come last: autocast caches the casts of weights, and these have no gradient.
        with torch.no_grad():
            plain = self._answer(batch, prompt_BP)
        return Outputs(answer, action, plain.colours())

    def _prompt(self, batch: GridBatch) -> Tensor:
        """Prompts of a batch: written at the first step of a block, cached for the others."""
        block = self._block(batch.step)
        is_first = batch.step % self._params["cache_interval"] == 0
        if not is_first and self._cached_block == block:
            return self._cached_BP
        prompt_BP: Tensor = self._writer(batch.symbols_BT)
        if self._params["cache_interval"] > 1:
            # A cached graph would fail at the second backward.
            self._cached_BP = prompt_BP.detach()
            # Prompts with an overflow are not cached but written again at the next step.
            self._cached_block = block if bool(torch.isfinite(self._cached_BP).all()) else -1
        return prompt_BP

    def _answer(self, batch: GridBatch, prompt_BP: Tensor) -> Answer:
        queries = len(batch.input_XSS) // len(prompt_BP)
        answer: Answer = self._agent(
            batch.input_XSS,
            batch.input_size_X2,
            prompt_BP.repeat_interleave(queries, 0),
            steps=self._params["refinements"],
        )
        return answer

    def loss(self, outputs: Outputs, batch: GridBatch) -> Mapping[str, Term]:
        params, answer, target_XSS = self._params, outputs.answer, batch.target_XSS
        solver = params["solver_weight"]
        is_early = batch.step < _CURRICULUM_TURN * self._steps
        size_weight = params["size_early" if is_early else "size_late"]
        self._monitor = {"wrong_cells": arc_loss.wrong_share(answer, target_XSS)}
        terms = {
            "risk": Term(arc_loss.risk(answer, target_XSS), solver),
            "ambiguity": Term(
                arc_loss.ambiguity(answer, target_XSS), solver * params["w_ambiguity"]
            ),
            "size": Term(arc_loss.size_surprise(answer, batch.size_X2), solver * size_weight),
        }
        if outputs.action is None or outputs.plain_XSS is None:
            return terms
        given = (batch.input_XSS, target_XSS)
        gain_X = arc_loss.changed_accuracy(answer.colours(), *given) - arc_loss.changed_accuracy(
            outputs.plain_XSS, *given
        )
        action = outputs.action
        reward_B = params["reward_scale"] * gain_X.view(len(action.value_B), -1).mean(1)
        # The advantage is a constant for the graph: only the action's probability has a gradient.
        advantage_B = reward_B - action.value_B.detach()
        self._monitor["reward"] = reward_B.mean()
        weight = params["rl_weight"]
        terms["policy"] = Term(-(advantage_B * action.log_prob_B).mean(), weight)
        terms["value"] = Term((action.value_B - reward_B).square().mean(), weight)
        return terms

    def monitor(self) -> Mapping[str, Tensor]:
        return self._monitor

    def validate(self) -> Mapping[str, float]:
        whole = self._problem.validation
        prompts_BP = torch.cat([self._writer(part.symbols_BT) for part in _parts(whole)])
        refined_BP = self._refined(prompts_BP)
        guesses = {
            "changed_cell_accuracy": self._guess(whole, refined_BP),
            "with_unrefined_prompts": self._guess(whole, prompts_BP),
            "copying_the_input": whole.input_XSS,
        }
        if self._problem.others:
            shuffled_BP = refined_BP[list(self._problem.others)]
            guesses["with_shuffled_prompts"] = self._guess(whole, shuffled_BP)
        given = (whole.input_XSS, whole.target_XSS)
        found = {
            name: float(arc_loss.changed_accuracy(guess_XSS, *given).mean())
            for name, guess_XSS in guesses.items()
        }
        guess_XSS = guesses["changed_cell_accuracy"]
        size_X2 = (guess_XSS != PAD).any(2).sum(1), (guess_XSS != PAD).any(1).sum(1)
        return {
            **found,
            "cell_accuracy": float(arc_loss.cell_accuracy(guess_XSS, whole.target_XSS).mean()),
            "cell_accuracy_copying": float(
                arc_loss.cell_accuracy(whole.input_XSS, whole.target_XSS).mean()
            ),
            "size_accuracy": float(
                (torch.stack(size_X2, 1) == whole.size_X2).all(1).float().mean()
            ),
            "solved": float(arc_loss.is_solved(guess_XSS, whole.target_XSS).float().mean()),
        }

    def _refined(self, prompt_BP: Tensor) -> Tensor:
        if not self._trains_policy:
            return prompt_BP
        refined_BP: Tensor = self._policy(prompt_BP).refined_BP
        return refined_BP

    def _guess(self, batch: GridBatch, prompt_BP: Tensor) -> Tensor:
        """Answers on their canvases, (X, S, S)."""
        pairs = zip(_parts(batch), torch.split(prompt_BP, _CHUNK), strict=True)
        return torch.cat([self._answer(part, prompts).grid() for part, prompts in pairs])

    def predict(self, samples: range) -> Sequence[Prediction]:
        whole = self._problem.validation
        some = _rows(whole, slice(samples.start, min(samples.stop, len(whole.input_XSS))))
        if not len(some.input_XSS):
            return ()
        guess_XSS = self._guess(some, self._refined(self._writer(some.symbols_BT)))
        score_X = arc_loss.changed_accuracy(guess_XSS, some.input_XSS, some.target_XSS)
        # Stacked, all samples need only two copies to the host.
        grids_X = torch.stack((some.input_XSS, some.target_XSS, guess_XSS), 1).tolist()
        return [
            Prediction("grid", _cut(given), _cut(target), _cut(guess), score)
            for (given, target, guess), score in zip(grids_X, score_X.tolist(), strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"cached_block": self._cached_block, "cached": self._cached_BP}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._cached_block = state["cached_block"]
        self._cached_BP = state["cached"].to(self._context.device)


def _key(context: Context) -> tuple[str, int, str, str]:
    return context.size, context.problem_seed, context.options["arc_path"], str(context.device)


def _rows(batch: GridBatch, part: slice) -> GridBatch:
    """Some tasks of a batch that has one query for each."""
    return GridBatch(batch.step, *(tensor[part] for tensor in batch[1:]))


def _parts(batch: GridBatch) -> Iterator[GridBatch]:
    for start in range(0, len(batch.input_XSS), _CHUNK):
        yield _rows(batch, slice(start, start + _CHUNK))


def _cut(rows: list[list[int]]) -> list[list[int]]:
    """A grid without the padding of its canvas."""
    cut = [[cell for cell in row if cell != PAD] for row in rows]
    return [row for row in cut if row]


def _train_plainly(task: ArcPromptTask, steps: int, must_stop: Callable[[], bool]) -> None:
    """Train a task in float32, without reports."""
    optimizer = torch.optim.AdamW(
        [{"params": list(group.parameters), "lr": group.lr} for group in task.groups],
        weight_decay=0.0,
    )
    for step in range(steps):
        if must_stop():
            raise InterruptedError(f"stopped after step {step} of {steps}")
        batch = task.batch(step)
        terms = task.loss(task.forward(batch), batch).values()
        optimizer.zero_grad()
        loss = torch.stack([term.weight * term.value for term in terms]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        for group, at in zip(task.groups, optimizer.param_groups, strict=True):
            nn.utils.clip_grad_norm_(group.parameters, group.clip)
            at["lr"] = group.lr * task.schedule(step / steps)
        optimizer.step()


_WIDE: dict[str, Float | Int | Choice] = {
    "lr_agent": Float(low=1e-5, high=2e-2, default=1e-5, log=True),
    "lr_language_model": Float(low=1e-5, high=1e-2, default=1e-3, log=True),
    "rl_weight": Choice(choices=(0.0, 0.1, 0.3, 1.0), default=0.3),
    "solver_weight": Float(low=0.3, high=1.0, default=0.7),
    "reward_scale": Float(low=1.0, high=10.0, default=5.0, log=True),
    "mask_floor": Float(low=0.0, high=0.5, default=0.1),
    "cache_interval": Choice(choices=(1, 2, 5, 10), default=1),
    "size_early": Float(low=0.1, high=1.0, default=0.6),
    "size_late": Float(low=0.1, high=1.0, default=0.3),
    "refinements": Int(low=1, high=6, default=3),
    "w_ambiguity": Float(low=0.0, high=0.3, default=0.05),
    "clip": Float(low=0.1, high=10.0, default=1.0, log=True),
}
_NARROW: dict[str, Float | Int | Choice] = {
    **_WIDE,
    "lr_agent": Float(low=1e-3, high=2e-2, default=3e-3, log=True),
    "lr_language_model": Float(low=3e-4, high=1e-2, default=1e-3, log=True),
    "cache_interval": Choice(choices=(1, 2), default=1),
}


class ArcPrompt(Objective):
    """Accuracy on the cells that a task changes, for rules that are never trained on.

    It needs the extra: pip install -e '.[arc]'.
    """

    name = "arc_prompt"
    metric = "changed_cell_accuracy"
    direction = "maximize"
    sizes = tuple(SIZES)
    spaces = {"narrow": _NARROW, "wide": _WIDE}
    options = {
        "arc_path": Option(
            default="", help="a folder of task files in the public ARC JSON format; empty: drawn"
        ),
        "prompt": Option(
            default="language_model",
            choices=("language_model", "features"),
            help="what writes it: a language model, or counts of what became of which colour",
        ),
        "qwen_architecture": Option(
            default="qwen2",
            choices=language_model.ARCHITECTURES,
            help="of the new language model",
        ),
        "qwen_path": Option(
            default="", help="a folder with the language model to begin with; empty: a new one"
        ),
        "qwen_dtype": Option(
            default="float32",
            choices=tuple(language_model.DTYPES),
            help="of the language model's parameters",
        ),
        "qwen_frozen": Option(
            default="no", choices=("no", "yes"), help="leave the language model as it is"
        ),
    }

    def settle(self, options: Mapping[str, str], size: str, precision: str) -> Mapping[str, str]:
        settled = dict(options)
        for name in ("arc_path", "qwen_path"):
            if settled[name]:
                settled[name] = str(Path(settled[name]).resolve())
        if settled["prompt"] == "language_model":
            language_model.check_available()
            if settled["qwen_path"]:
                language_model.check_folder(Path(settled["qwen_path"]), SYMBOLS)
            if settled["qwen_frozen"] == "no":
                _check_trained(settled["qwen_dtype"], precision)
        if settled["arc_path"]:
            problem(size, self.problem_seed(size), settled["arc_path"], "cpu")
        return settled

    def build(self, params: Params, context: Context) -> ArcPromptTask:
        return ArcPromptTask(params, context)

    def references(self, context: Context) -> Mapping[str, float]:
        options = {**context.options, "prompt": "features"}
        params = {**self.defaults("wide"), **_BASELINE}
        devices = [context.device] if context.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(context.seed)
            task = self.build(params, replace(context, options=options))
            _train_plainly(task, context.epochs * task.steps_per_epoch, context.must_stop)
            for module in task.modules.values():
                module.eval()
            with torch.no_grad():
                found = task.validate()
        return {
            "copying the input": found["copying_the_input"],
            "features only": found[self.metric],
        }


def _check_trained(dtype: str, precision: str) -> None:
    """Raise `ValueError` for parameters that cannot be trained in a precision."""
    cure = "write --qwen_dtype float32, or --qwen_frozen yes"
    if dtype == "float16":
        raise ValueError(
            "parameters in float16 cannot be trained: a loss scaler does not unscale their "
            f"gradients, and small updates round to nothing; {cure} (--qwen_dtype)"
        )
    if dtype == "bfloat16" and precision == "fp16":
        raise ValueError(
            "parameters in bfloat16 cannot be trained under the loss scaler of fp16, which does "
            f"not unscale their gradients; {cure}, or --precision bf16 (--qwen_dtype)"
        )


objective = ArcPrompt()
