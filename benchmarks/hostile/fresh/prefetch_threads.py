"""Each trial leaves a prefetching thread (not a daemon) that waits for its queue, and a child that holds stdout open.
Right: exit 0, 6 COMPLETE, and the run returns within seconds of its last trial, also if its output is piped: it waits
for neither (both end by themselves after 300 s), and no `sleep 300` is left behind when it has returned.
"""

import queue
import subprocess
import threading

import torch
from torch import nn

from objectives import Float, Group, Objective, Task, Term

EXIT = 0
STATES = {"COMPLETE": 6, "PRUNED": 0, "FAIL": 0}

TRUTH = torch.tensor([1.0, -2.0, 3.0, 0.5])


def prefetch(inbox):
    try:
        inbox.get(timeout=300)
    except queue.Empty:
        pass


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
        self.inbox = queue.Queue()
        threading.Thread(target=prefetch, args=(self.inbox,)).start()
        self.viewer = subprocess.Popen(["sleep", "300"])  # TensorBoard, say
        self.modules = {"net": net}
        self.groups = [Group(name="net", parameters=list(net.parameters()), lr=params["lr"])]

    def batch(self, step):
        return points(32, self.context.seed, step, device=self.context.device)

    def forward(self, batch):
        return self.modules["net"](batch["x"]).squeeze(1)

    def loss(self, outputs, batch):
        return {"mse": Term(nn.functional.mse_loss(outputs, batch["y"]))}

    def validate(self):
        batch = points(500, self.context.problem_seed, device=self.context.device)
        return {"error": float(self.loss(self.forward(batch), batch)["mse"].value)}


class Problem(Objective):
    name, metric, direction = "fresh_prefetch_threads", "error", "minimize"
    spaces = {
        "wide": {
            "lr": Float(low=1e-3, high=1e-1, default=1e-2, log=True),
        }
    }

    def build(self, params, context):
        return Line(params, context)


objective = Problem()
