"""Tables that learn image by image, and queues of images."""

from __future__ import annotations

import torch

from czslkit.online import AdamWTable, EntropyQueues, entropy


def test_a_table_learns_as_torch_does_also_in_rows_that_are_added_later() -> None:
    generator = torch.Generator().manual_seed(0)
    expected = torch.nn.Parameter(torch.zeros(5, 3))
    optimizer = torch.optim.AdamW([expected], lr=0.1, eps=1e-3, weight_decay=0.5)
    table = AdamWTable(torch.zeros(2, 3))
    for step in range(6):
        rows = 2 if step < 3 else 5
        gradient = torch.zeros(5, 3)
        gradient[:rows] = torch.randn(rows, 3, generator=generator)
        expected.grad = gradient
        optimizer.step()
        table.extend(rows)
        table.step(gradient[:rows], lr=0.1, eps=1e-3, decay=0.5)
        torch.testing.assert_close(table.value, expected.detach()[:rows])
        assert not expected[rows:].any()


def test_a_queue_keeps_the_lowest_entropies_and_of_equal_ones_the_first() -> None:
    queues, features = EntropyQueues(2, torch.zeros(1, 4)), torch.eye(4)
    for value, feature in zip((0.5, 0.7, 0.7, 0.5), features, strict=True):
        queues.add(9, value, feature)
    assert [(entry.entropy, entry.number) for entry in queues.entries[9]] == [(0.5, 0), (0.5, 3)]
    queues.add(2, 3.0, features[1])
    assert queues.pairs.tolist() == [9, 2]
    assert queues.means.tolist() == [[0.5, 0, 0, 0.5], [0, 1, 0, 0]]


def test_the_entropy_is_that_of_the_definition() -> None:
    logits = torch.tensor([[0.0, 1.0, -2.0], [100.0, -100.0, 0.0]])
    probabilities = logits.double().softmax(1)
    expected = -(probabilities * probabilities.clamp(min=1e-300).log()).sum(1)
    torch.testing.assert_close(entropy(logits).double(), expected)
