"""DINOv2's teacher targets, for a training loop that already has them: change the import."""

from torch import Tensor

from sinkhorn_ot.adapters.swav import codes_of_named
from sinkhorn_ot.problem import checks

from .ranks import everyone
from .scores import matrix


_NAMES = ("teacher_output", "teacher_temp")


def sinkhorn_knopp_teacher(
    teacher_output: Tensor, teacher_temp: float | Tensor, n_iterations: int = 3
) -> Tensor:
    """Return the teacher's targets for class tokens, balanced over the samples of all ranks.

    It is the method of `DINOLoss` as a function: `DINOLoss.sinkhorn_knopp_teacher =
    staticmethod(sinkhorn_knopp_teacher)` puts it there.

    Args:
        teacher_output: Outputs of this rank's samples, (B, K). They are not changed.
        teacher_temp: Temperature.
        n_iterations: Iterations, prototypes first.

    Returns:
        Targets, (B, K), float32, or float64 for float64 outputs; each sample's sum to one.

    Raises:
        ValueError: If an argument breaks a rule; see `swav_codes`.
        RuntimeError: If a rank cannot be reached.

    Source: M. Oquab et al., DINOv2: Learning robust visual features without supervision, TMLR 2024.
    """
    out = matrix("teacher_output", teacher_output, "(B, K)")
    checks.count("n_iterations", n_iterations)
    return codes_of_named(_NAMES, out, teacher_temp, n_iterations, everyone())


def patches_sinkhorn_knopp_teacher(
    teacher_output: Tensor,
    teacher_temp: float | Tensor,
    n_masked_patches_tensor: object = None,
    n_iterations: int = 3,
) -> Tensor:
    """Return the teacher's targets for masked patches: the method of `iBOTPatchLoss`.

    Args:
        teacher_output: Outputs of this rank's masked patches, (patches, K).
        teacher_temp: Temperature.
        n_masked_patches_tensor: Taken, and not needed: how many they are cancels. It is not
            changed, where the original leaves the sum over ranks in it.
        n_iterations: Iterations, prototypes first.

    Returns:
        Targets, (patches, K), as `sinkhorn_knopp_teacher` returns them.

    Raises:
        ValueError: If an argument breaks a rule; see `swav_codes`.
        RuntimeError: If a rank cannot be reached.

    Source: J. Zhou et al., iBOT: Image BERT pre-training with online tokenizer, ICLR 2022.
    """
    return sinkhorn_knopp_teacher(teacher_output, teacher_temp, n_iterations)
