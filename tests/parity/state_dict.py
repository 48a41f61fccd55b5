"""Saves the files of weights that the tests read: `python3 tests/parity/state_dict.py`, with PyTorch 2."""

from collections import OrderedDict
from pathlib import Path

import torch

here = Path(__file__).parent
module = torch.nn.Module()
module.conv1 = torch.nn.Conv2d(1, 3, 2, bias=False)
module.bn1 = torch.nn.BatchNorm2d(3)
with torch.no_grad():
    module.conv1.weight.copy_(torch.arange(12.0).reshape(3, 1, 2, 2))
    module.bn1.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 4.0], dtype=torch.bfloat16))
    module.bn1.bias = torch.nn.Parameter(torch.tensor([0.5, -1.5, 2.5], dtype=torch.float16))
state = module.state_dict()
assert isinstance(state, OrderedDict)
state["double"] = torch.tensor([0.25, -8.0], dtype=torch.float64)
state["tail"] = torch.arange(4.0)[2:]
state["transposed"] = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
torch.save(state, here / "state_dict.pth")
torch.save(state, here / "state_dict_legacy.pth", _use_new_zipfile_serialization=False)
# Beside its weights such a file may hold other tensors.
checkpoint = {"epoch": 3, "best_acc1": torch.tensor(0.25), "state_dict": dict(state), "optimizer": {"lr": [1e-3]}}
torch.save(checkpoint, here / "checkpoint.pth")
