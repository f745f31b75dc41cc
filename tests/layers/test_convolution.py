"""Convolution and pooling against `torch.nn`, in float64: parameters, outputs and gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import zoo.layers
from zoo.layers import AvgPool2d, Conv2d, MaxPool2d

SETTINGS = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": (0, 2)},
    {"stride": (1, 3), "dilation": 2, "padding": 2},
    {"kernel_size": (1, 4), "dilation": (1, 2), "bias": False},
    {"kernel_size": 2, "padding": "same"},
    {"kernel_size": (3, 2), "padding": "same", "dilation": (2, 3)},
    {"padding": "valid"},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": 2, "dilation": 2},
    {"padding": (2, 1), "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "replicate", "stride": 2},
    {"padding": 2, "padding_mode": "circular"},
    {"kernel_size": (2, 3), "padding": "same", "padding_mode": "circular"},
]


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def assert_same(ours: nn.Module, theirs: nn.Module, device: torch.device, *shape: int) -> None:
    """The two give the same output, and for a random functional of it the same gradients."""
    gradients = []
    outputs = []
    for layer in (ours, theirs):
        layer, x = layer.to(device), image(*shape).detach().to(device).requires_grad_()
        outputs.append(layer(x))
        direction = image(*outputs[-1].shape, seed=1).detach().to(device)
        gradients.append(torch.autograd.grad((outputs[-1] * direction).sum(), [x, *layer.parameters()]))
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_convolution_is_torchs(setting, device):
    options = {"kernel_size": 3, "dtype": torch.float64, **setting}
    ours, theirs = Conv2d(4, 8, **options), nn.Conv2d(4, 8, **options)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, device, 3, 4, 9, 11)
    assert_same(ours, theirs, device, 4, 9, 11)


def test_convolution_of_a_hand_computed_image():
    layer = Conv2d(1, 1, (1, 2), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, -1.0]]]]))
    assert layer(torch.tensor([[[1.0, 4.0, 9.0]]])).tolist() == [[[-3.0, -5.0]]]


def test_gradients_are_those_of_finite_differences():
    layer = Conv2d(2, 2, 2, stride=2, padding=1, groups=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(layer, (image(1, 2, 3, 4),))


def test_a_seed_gives_torchs_parameters_under_torchs_keys():
    for bias in (True, False):
        torch.manual_seed(3)
        ours = Conv2d(3, 6, (3, 5), groups=3, bias=bias).state_dict()
        torch.manual_seed(3)
        theirs = nn.Conv2d(3, 6, (3, 5), groups=3, bias=bias).state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(2, None, 0, 1), (3, 2, 1, 1), ((2, 3), (3, 1), (1, 0), 1), (3, 2, 1, 2), ((1, 2), 4, 0, (2, 3)), (4, 3, 2, 1)],
)
def test_max_pooling_is_torchs(kernel, stride, padding, dilation, ceil_mode, device):
    arguments = (kernel, stride, padding, dilation, False, ceil_mode)
    assert_same(MaxPool2d(*arguments), nn.MaxPool2d(*arguments), device, 2, 3, 10, 7)
    assert_same(MaxPool2d(*arguments), nn.MaxPool2d(*arguments), device, 3, 10, 7)
    arguments = (kernel, stride, padding, dilation, True, ceil_mode)
    x = image(2, 3, 10, 7).detach()
    for ours, theirs in zip(MaxPool2d(*arguments)(x), nn.MaxPool2d(*arguments)(x), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil_mode", "include", "divisor"),
    [
        *itertools.product([3], [2], [1], [False, True], [False, True], [None, 5]),
        ((2, 3), None, 0, True, True, None),
        ((4, 2), (3, 2), (2, 1), True, True, None),
        ((4, 2), (3, 2), (2, 1), True, False, None),
    ],
)
def test_average_pooling_is_torchs(kernel, stride, padding, ceil_mode, include, divisor, device):
    arguments = (kernel, stride, padding, ceil_mode, include, divisor)
    assert_same(AvgPool2d(*arguments), nn.AvgPool2d(*arguments), device, 2, 3, 10, 7)
    assert_same(AvgPool2d(*arguments), nn.AvgPool2d(*arguments), device, 3, 9, 8)


def test_equal_pixels_give_the_gradient_to_the_first():
    grads = []
    for layer in (MaxPool2d(2), nn.MaxPool2d(2)):
        x = torch.zeros(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
        layer(x).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_nan_stays_nan():
    x = torch.tensor([[[[1.0, float("nan")], [0.0, 2.0]]]])
    assert MaxPool2d(2)(x).isnan().all()
    assert AvgPool2d(2)(x).isnan().all()


@pytest.mark.parametrize("batch", [0, 1])
def test_empty_and_single_batches_keep_their_shape(batch):
    x = torch.zeros(batch, 2, 5, 5)
    assert Conv2d(2, 3, 3)(x).shape == nn.Conv2d(2, 3, 3)(x).shape
    assert MaxPool2d(2)(x).shape == (batch, 2, 2, 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Conv2d(3, 4, 3, groups=2), "groups \\(2\\) must divide in_channels \\(3\\)"),
        (lambda: Conv2d(3, 4, 0), "kernel_size must be an integer of at least 1"),
        (lambda: Conv2d(3, 4, 3, padding="full"), "padding must be numbers, 'same' or 'valid'"),
        (lambda: Conv2d(3, 4, 3, padding="same", stride=2), "padding='same' needs stride 1"),
        (lambda: Conv2d(3, 4, 3, padding_mode="mirror"), "padding_mode must be"),
        (lambda: MaxPool2d(2, padding=2), "at most half of kernel_size"),
    ],
)
def test_mistakes_are_one_line(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("home", [zoo.layers, nn])
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Conv2d", (3, 4, 3), (1, 2, 5, 5)),
        ("Conv2d", (3, 4, 3), (1, 3, 2, 5)),
        ("Conv2d", (3, 4, 3), (5, 5)),
        ("MaxPool2d", (2,), (5, 5)),
        ("MaxPool2d", (7,), (1, 1, 5, 5)),
        ("AvgPool2d", (7,), (1, 1, 5, 5)),
    ],
)
def test_images_that_do_not_fit_are_runtime_errors(home, name, arguments, shape):
    with pytest.raises(RuntimeError):
        getattr(home, name)(*arguments)(torch.zeros(shape))


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_padding_is_never_the_largest(ceil_mode):
    """Where all pixels of a window are −∞, the first of them is the place and takes the gradient."""
    x = torch.full((2, 2, 5, 4), -torch.inf)
    x[1, 1] = torch.randn(5, 4)
    found = []
    for home in (zoo.layers, nn):
        images = x.clone().requires_grad_()
        largest, place = home.MaxPool2d(3, 2, 1, return_indices=True, ceil_mode=ceil_mode)(images)
        largest.backward(torch.rand(largest.shape, generator=torch.Generator().manual_seed(0)))
        found.append((largest.detach(), place, images.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int8, torch.bfloat16])
def test_pooling_of_other_types(dtype):
    x = torch.randint(-90, 90, (2, 3, 7, 6)).abs().to(dtype) if dtype == torch.uint8 else None
    x = torch.randint(-90, 90, (2, 3, 7, 6)).to(dtype) if x is None else x
    assert torch.equal(MaxPool2d(3, 2, 1)(x), nn.MaxPool2d(3, 2, 1)(x))
    if dtype in (torch.int64, torch.bfloat16):
        ours, theirs = AvgPool2d(3, 2, 1)(x), nn.AvgPool2d(3, 2, 1)(x)
        assert ours.dtype == theirs.dtype
        assert torch.allclose(ours, theirs, rtol=2e-2, atol=0.5 if dtype == torch.bfloat16 else 0)


def test_a_size_may_stand_in_a_tuple_alone():
    x = image(1, 2, 6, 6)
    assert torch.equal(AvgPool2d((3,), (2,), (1,))(x), AvgPool2d(3, 2, 1)(x))
    assert torch.equal(MaxPool2d((2,))(x), nn.MaxPool2d((2,))(x))


def test_autocast_gives_its_type():
    x = torch.randn(2, 3, 6, 6)
    ours, theirs = Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    ours.load_state_dict(theirs.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = ours(x), theirs(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert (found - expected).float().norm() <= 0.02 * expected.float().norm()
    found.float().sum().backward()
    assert ours.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("of", ["images", "weight"])
def test_channels_last_is_kept(of):
    x = torch.randn(2, 3, 6, 8)
    x = x.to(memory_format=torch.channels_last) if of == "images" else x
    for name, arguments in (("Conv2d", (3, 4, 3)), ("MaxPool2d", (2,)), ("AvgPool2d", (2,))):
        ours, theirs = (getattr(home, name)(*arguments) for home in (zoo.layers, nn))
        if of == "weight":
            ours, theirs = (layer.to(memory_format=torch.channels_last) for layer in (ours, theirs))
        assert ours(x).stride() == theirs(x).stride()


@pytest.mark.parametrize("setting", [{}, {"padding": 1, "groups": 2, "bias": False}, {"padding_mode": "reflect"}])
def test_layers_describe_themselves(setting):
    text = repr(Conv2d(4, 8, 3, **setting))
    assert all(str(value) in text for value in setting.values())
    assert "kernel_size=(3, 3)" in text
    for name, arguments in (("MaxPool2d", (2,)), ("MaxPool2d", ((3, 2), 1, 1, 2, True)), ("AvgPool2d", (2, (1, 2)))):
        assert repr(getattr(zoo.layers, name)(*arguments)) == repr(getattr(nn, name)(*arguments))


def test_a_script_runs_torchs_layers():
    ours = nn.Sequential(Conv2d(2, 4, 3, padding="same", groups=2), MaxPool2d(2, 1, 1), AvgPool2d(3, 2, 1, True, False))
    scripted = torch.jit.script(ours)
    x = torch.randn(2, 2, 7, 8)
    torch.testing.assert_close(scripted(x), ours(x))
    assert scripted.state_dict().keys() == ours.state_dict().keys()


@pytest.mark.parametrize("name", ["Conv2d", "MaxPool2d", "AvgPool2d"])
def test_vmap_over_images_and_over_weights(name: str) -> None:
    arguments = (3, 4, 3) if name == "Conv2d" else (2,)
    ours, theirs = getattr(zoo.layers, name)(*arguments), getattr(nn, name)(*arguments)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 2, 3, 8, 9)
    torch.testing.assert_close(torch.func.vmap(ours)(x), torch.func.vmap(theirs)(x), rtol=1e-5, atol=1e-6)
    if name == "Conv2d":
        weights = {key: torch.stack([value, 2 * value]) for key, value in ours.state_dict().items()}
        found = torch.func.vmap(lambda w: torch.func.functional_call(ours, w, (x[0],)))(weights)
        torch.testing.assert_close(
            found[1], torch.func.functional_call(ours, {k: w[1] for k, w in weights.items()}, x[0])
        )


@pytest.mark.parametrize("name", ["Conv2d", "MaxPool2d", "AvgPool2d"])
def test_export_keeps_the_batch_open(name: str) -> None:
    layer = getattr(zoo.layers, name)(*((3, 4, 3) if name == "Conv2d" else (2,))).eval()
    sizes = {0: torch.export.Dim("b", min=1, max=64)}
    exported = torch.export.export(layer, (torch.randn(2, 3, 8, 10),), dynamic_shapes=(sizes,)).module()
    x = torch.randn(5, 3, 8, 10)
    torch.testing.assert_close(exported(x), layer(x))
