"""Cluttered MNIST: every pixel is a digit's, a piece's or dark, and a row is the same whenever it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo.data import create_data
from zoo.data.cluttered import Canvas
from zoo.errors import ZooError


def digits(count: int = 40) -> torch.Tensor:
    return torch.randint(1, 256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_a_translated_digit_is_whole_wherever_it_stands() -> None:
    source = digits()
    images = Canvas(source, 60, 0, 8, key=1)[torch.arange(40)]
    places = set()
    for image, digit in zip(images[:, 0], source[:, 0], strict=True):
        rows, columns = image.nonzero().unbind(1)
        top, left = int(rows.min()), int(columns.min())
        assert torch.equal(image[top : top + 28, left : left + 28], digit)
        assert int((image > 0).sum()) == 28 * 28
        places.add((top, left))
    assert len(places) > 35


def test_pieces_lie_on_the_canvas_and_rows_are_the_same_in_any_batch() -> None:
    source = digits()
    plain, cluttered = (Canvas(source, 60, pieces, 8, key=1) for pieces in (0, 4))
    images = cluttered[torch.arange(40)]
    order = torch.tensor([7, 3, 3])
    assert torch.equal(cluttered[order], images[order])
    assert cluttered[torch.arange(0)].shape == (0, 1, 60, 60)
    counts = (images > 0).sum((1, 2, 3))
    assert ((counts > 28 * 28) & (counts <= 28 * 28 + 4 * 64)).all()
    assert not torch.equal(images, Canvas(source, 60, 4, 8, key=2)[torch.arange(40)])
    assert plain[torch.tensor([0])].shape == images[:1].shape


def test_of_the_real_files(shared_data: Path) -> None:
    data = create_data("cluttered_mnist", root=str(shared_data), side=40)
    assert data.spec.shape == (1, 40, 40)
    batch = data.rows("test")[torch.arange(3)]
    plain = create_data("mnist", root=str(shared_data)).rows("test")[torch.arange(3)]
    assert batch.y.tolist() == plain.y.tolist()
    assert batch.x.shape == (3, 1, 40, 40)


@pytest.mark.parametrize("options", [{"side": 20}, {"num_pieces": -1}, {"piece_size": 29}])
def test_mistakes_are_one_line(options: dict[str, int]) -> None:
    with pytest.raises(ZooError, match=rf"data\.{next(iter(options))} must be"):
        create_data("cluttered_mnist", **options)
