"""Quotes a binary header in its error: nearly a megabyte with NUL (no text of PostgreSQL) and lone surrogates (no UTF-8).
Right: exit 0; `parquet` FAIL, its traceback stored cut and escaped, legible in `status` and on the terminal; the search
goes on, and no error of the database or of an encoding hides the objective's own. (Five in a row: exit 1.)
"""

import torch
from torch import nn

from objectives import Choice, Float, Group, Objective, Task, Term

EXIT = 0
ENQUEUE = [{"table": "parquet"}]


def expected(params: dict) -> str:
    return "FAIL" if params["table"] == "parquet" else "COMPLETE"


TRUTH = torch.tensor([1.0, -2.0, 3.0, 0.5])
HEADER = b"PAR1\x00\x00\xff\xfe\x1b[2J".decode("utf-8", "surrogateescape")


def points(count, *seed, device):
    generator = torch.Generator().manual_seed(hash(seed))
    x = torch.randn(count, 4, generator=generator, dtype=torch.float32)
    y = x @ TRUTH + 0.1 * torch.randn(count, generator=generator, dtype=torch.float32)
    return {"x": x.to(device), "y": y.to(device)}


class Line(Task):
    steps_per_epoch = 20

    def __init__(self, params, context):
        self.params, self.context = params, context
        net = nn.Linear(4, 1).to(context.device)
        self.modules = {"net": net}
        self.groups = [Group(name="net", parameters=list(net.parameters()), lr=params["lr"])]

    def batch(self, step):
        if step == 25 and self.params["table"] == "parquet":
            raise ValueError(f"not a table, it begins with: {HEADER * 80_000}")
        return points(32, self.context.seed, step, device=self.context.device)

    def forward(self, batch):
        return self.modules["net"](batch["x"]).squeeze(1)

    def loss(self, outputs, batch):
        return {"mse": Term(nn.functional.mse_loss(outputs, batch["y"]))}

    def validate(self):
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_nul_message", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
            "table": Choice(choices=("csv", "npy", "parquet"), default="csv"),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
