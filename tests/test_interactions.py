import pytest
import torch
from torch import nn

from czslkit.interactions import CrossAttention, QuickGELU


@torch.no_grad()
def test_cross_attention_equals_torchs_multihead_attention():
    torch.manual_seed(0)
    layer = CrossAttention(12, heads=3, dropout=0.5).eval()
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    reference.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
    reference.in_proj_bias.zero_()
    reference.out_proj.load_state_dict(layer.out[0].state_dict())
    query, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    x = query + reference(query, context, context, need_weights=False)[0]
    hidden = layer.norm(x) @ layer.mlp[0].weight.T + layer.mlp[0].bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    expected = x + hidden @ layer.mlp[3].weight.T + layer.mlp[3].bias
    torch.testing.assert_close(layer(query, context), expected)


@torch.no_grad()
def test_texts_shared_by_all_images_need_not_be_repeated():
    torch.manual_seed(0)
    layer = CrossAttention(12, heads=2, dropout=0.0)
    query, context = torch.randn(5, 12), torch.randn(3, 7, 12)
    torch.testing.assert_close(layer(query, context), layer(query.expand(3, -1, -1), context))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="5 attention heads do not divide the joint width 12"):
        CrossAttention(12, heads=5, dropout=0.0)


def test_quick_gelu_at_one():
    torch.testing.assert_close(QuickGELU()(torch.tensor(1.0)), torch.tensor(1.0).mul(1.702).sigmoid())
