"""How many launches a call makes: those of our kernels, and those of PyTorch's operators."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


# operators that launch nothing: they allocate, look at memory in another way, or ask for a dtype
_FREE = {
    "detach", "view", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "select",
    "slice", "transpose", "expand", "permute", "unsqueeze", "squeeze", "alias", "as_strided", "t",
    "unbind", "promote_types",
}  # fmt: skip


class Operators(TorchDispatchMode):
    """Notes the names of operators that launch something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.overloadpacket.__name__
        if name not in _FREE:
            self.names.append(name)
        return op(*args, **(kwargs or {}))
