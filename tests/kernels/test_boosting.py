"""Derivatives and losses of a round of boosting beside torch's operations: the same integers, and sums to rounding."""

from __future__ import annotations

import pytest
import torch

from zoo import kernels as all_kernels
from zoo.kernels.boosting import LOSSES, add_leaves, fixed_derivatives, largest_derivatives
from zoo.models.trees.losses import Loss, Step

SIZES = [1, 7, 1023, 1025, 40_000]


def rows(size: int, loss: str, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    y = (torch.randint(2, (size,)) if loss == "log_loss" else torch.randn(size)).double()
    weight = torch.rand(size).double() * (torch.rand(size) > 0.2)
    return torch.randn(size, 1).double() * scale, y, weight, torch.randint(5, (size,)), torch.randn(5).double()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_the_kernel_is_the_torch_form(kernels: str, monkeypatch: pytest.MonkeyPatch, name: str, threads: int) -> None:
    loss, before = Loss(name), torch.get_num_threads()
    torch.set_num_threads(threads)
    for size in SIZES:
        for scale in (1.0, 1e-300, 1e3):
            output, y, weight, leaf, value = rows(size, name, scale)
            held_out = torch.rand(size) < 0.3
            views = [(output, y, weight, leaf, None), (output, y, weight, leaf, held_out)]
            wide = torch.stack([output[:, 0], y, weight], 1)
            views.append((wide[:, :1], wide[:, 1], wide[:, 2], torch.stack([leaf, leaf], 1)[:, 0], held_out))
            views.append((output, y[:1].expand(size), weight[:1].expand(size) + 0.5, leaf[:1].expand(size), None))
            for F, target, w, at, apart in views:

                def both(F=F, target=target, w=w, at=at, apart=apart, value=value):  # type: ignore[no-untyped-def]
                    units, sums = next(iter(loss.sums(F, target, w)))
                    return units, sums.weight, sums.gradient, *loss.add_leaves(F, [Step(at, value)], target, w, apart)

                units, *found = both()
                monkeypatch.setenv("ZOO_KERNELS", "0")
                expected_units, *expected = both()
                monkeypatch.setenv("ZOO_KERNELS", kernels)
                assert units == expected_units
                for mine, theirs in zip(found[:3], expected[:3], strict=True):
                    assert torch.equal(mine, theirs)
                torch.testing.assert_close(found[3:], expected[3:], rtol=1e-13, atol=1e-15 * size)
    torch.set_num_threads(before)


def test_small_losses_keep_their_digits() -> None:
    output = torch.linspace(-60, 60, 999).double()
    y = (output > 0).double()
    if all_kernels.status().variant is not None:
        for row in (slice(0, 1), slice(300, 301), slice(700, 701), slice(998, 999)):
            leaf, one = torch.zeros(1, dtype=torch.int64), torch.ones(1).double()
            _, losses = add_leaves(0, output[row], leaf, one * 0, y[row], one, None)
            torch.testing.assert_close(losses[0], (-output[row].abs()).exp().log1p()[0], rtol=1e-14, atol=0)


def test_losses_are_the_same_for_any_number_of_threads(kernels: str) -> None:
    output, y, weight, leaf, value = rows(70_000, "log_loss")
    before, sums = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        if kernels != "0":
            sums.append(add_leaves(0, output[:, 0], leaf, value, y, weight, None)[1])
    torch.set_num_threads(before)
    assert all(torch.equal(sums[0], other) for other in sums[1:])


def test_the_operators_are_what_torch_expects(kernels: str) -> None:
    output, y, weight, leaf, value = rows(6, "log_loss")
    derive, step = (0, output[:, 0], y, weight), (0, output[:, 0], leaf, value, y, weight, leaf > 2)
    if all_kernels.status().variant is None:
        with pytest.raises(RuntimeError, match="there is no kernel"):
            largest_derivatives(*derive)
        return
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.zoo.largest_derivatives, derive, test_utils=tests)
    torch.library.opcheck(torch.ops.zoo.fixed_derivatives, (*derive, 2.0, 4.0), test_utils=tests)
    torch.library.opcheck(torch.ops.zoo.add_leaves, step, test_utils=tests)
    for place, wrong in ((0, 2), (1, output), (1, output[:, 0].float()), (2, leaf[1:]), (2, leaf + 5), (2, leaf - 9),
                         (3, value[None]), (4, y[1:]), (6, leaf)):  # fmt: skip
        with pytest.raises(RuntimeError, match="zoo::add_leaves"):
            add_leaves(*step[:place], wrong, *step[place + 1 :])
    with pytest.raises(RuntimeError, match="zoo::fixed_derivatives"):
        fixed_derivatives(0, output[:, 0], y[1:], weight, 1.0, 1.0)
