import pytest
import torch

import czslkit
from czslkit.backbones import load_backbone
from czslkit.prompts import FixedPrompt, SoftPrompt

PAIRS = torch.tensor([[0, 0], [1, 1], [0, 1]])


@pytest.fixture
def backbone(clip_file):
    return load_backbone(str(clip_file)).eval()


@pytest.fixture
def single_tokens() -> czslkit.PairSpace:
    return czslkit.PairSpace(("wet", "old"), ("dog", "car"), PAIRS, torch.tensor([True, True, False]))


@torch.no_grad()
def test_a_soft_prompt_starts_as_the_sentence_where_words_are_single_tokens(backbone, single_tokens):
    soft, fixed = SoftPrompt(backbone, single_tokens), FixedPrompt(single_tokens)
    torch.testing.assert_close(soft(backbone, PAIRS).pair, fixed(backbone, PAIRS).pair)


@torch.no_grad()
def test_a_sentence_is_what_open_clip_makes_of_it(backbone, space):
    found = FixedPrompt(space)(backbone, torch.tensor([[1, 3], [2, 0]])).pair
    ids = backbone.tokenize(["a photo of faux fur dry-erase_board", "a photo of wet heart"], 77)
    torch.testing.assert_close(found, backbone.clip.encode_text(ids))


@torch.no_grad()
def test_a_word_starts_as_the_mean_of_its_tokens(backbone, space):
    prompt = SoftPrompt(backbone, space)
    tokens = [token for token in backbone.tokenize(["faux fur"], 8)[0].tolist() if 0 < token < 49406]
    assert len(tokens) == 2
    expected = backbone.clip.token_embedding.weight[tokens].mean(0)
    torch.testing.assert_close(prompt.words[1].data, expected)
    assert prompt.words.shape == (3 + 4, 64)


@torch.no_grad()
def test_primitive_prompts_hold_one_word_each(backbone, single_tokens):
    text = SoftPrompt(backbone, single_tokens, primitives=True)(backbone, PAIRS)
    ids = backbone.tokenize(["a photo of wet", "a photo of old", "a photo of dog", "a photo of car"], 77)
    torch.testing.assert_close(torch.cat([text.attr, text.obj]), backbone.clip.encode_text(ids))


@pytest.mark.parametrize(("words", "context"), [(True, False), (False, True), (True, True), (False, False)])
def test_only_the_chosen_parts_learn(backbone, space, words, context):
    prompt = SoftPrompt(backbone, space, learn_words=words, learn_context=context)
    assert (prompt.words.requires_grad, prompt.context[0].requires_grad) == (words, context)


@torch.no_grad()
def test_context_length_changes_nothing_that_fits(backbone, space):
    short, long = (SoftPrompt(backbone, space, context_length=n)(backbone, PAIRS).pair for n in (8, 16))
    assert torch.equal(short, long)


def test_a_context_that_does_not_fit_is_refused(backbone, space):
    with pytest.raises(ValueError, match=r"context 'a very good photo of' has 5 tokens.*9, more than context_length 8"):
        SoftPrompt(backbone, space, context="a very good photo of")


def test_dropout_acts_on_the_words(backbone, space):
    prompt = SoftPrompt(backbone, space, dropout=0.9).train()
    torch.manual_seed(0)
    assert not torch.equal(prompt(backbone, PAIRS).pair, prompt(backbone, PAIRS).pair)
    assert torch.equal(prompt.eval()(backbone, PAIRS).pair, prompt(backbone, PAIRS).pair)


@pytest.mark.parametrize("name", ["clip", "csp"])
def test_a_word_that_is_blank_for_the_tokenizer_is_refused(clip_file, name):
    blank = czslkit.PairSpace(("wet", "."), ("dog", "car"), PAIRS, torch.tensor([True, True, False]))
    with pytest.raises(ValueError, match=r"OpenClip has no token for ' '; rename these attributes or objects"):
        czslkit.build(name, blank, backbone=str(clip_file)).text(PAIRS)


class GraphPrompt(SoftPrompt):
    """A prompt whose words are made by one layer of a graph network. The words of a seen pair are neighbours."""

    version = 1

    def __init__(self, backbone, space, **options):
        super().__init__(backbone, space, learn_words=False, **options)
        attr, obj = space.pairs[space.seen].T
        edges = torch.eye(len(self.words))
        edges[attr, obj + len(space.attrs)] = edges[obj + len(space.attrs), attr] = 1
        self.register_buffer("edges", edges / edges.sum(1, keepdim=True))
        self.layer = torch.nn.Linear(self.words.shape[1], self.words.shape[1])
        self.calls = 0

    def elements(self):
        self.calls += 1
        return self.dropout(self.words + self.edges @ self.layer(self.words))


@pytest.mark.parametrize("options", [{}, {"primitives": True}, {"keep_tokens": True}])
def test_a_graph_network_that_makes_the_words_is_trained_and_runs_once_a_call(backbone, single_tokens, options):
    prompt = GraphPrompt(backbone, single_tokens, **options)
    target = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam([p for p in prompt.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(40):
        text = prompt(backbone, PAIRS)
        losses.append(1 - torch.cosine_similarity(text.pair, target).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1
    assert prompt.calls == 40
    with torch.no_grad():
        prompt(backbone, PAIRS[:1].expand(600, 2))  # encoded in parts
    assert prompt.calls == 41


@torch.no_grad()
def test_a_prompt_uses_the_words_that_elements_returns(backbone, single_tokens):
    prompt, plain = GraphPrompt(backbone, single_tokens), SoftPrompt(backbone, single_tokens)
    plain.words.copy_(prompt.elements())
    assert torch.equal(prompt(backbone, PAIRS).pair, plain(backbone, PAIRS).pair)


def test_words_that_are_not_one_for_each_name_are_refused(backbone, single_tokens):
    class TooMany(SoftPrompt):
        def elements(self):
            return torch.cat([self.words, self.words.mean(0, keepdim=True)])

    with pytest.raises(ValueError, match=r"TooMany.elements returned \[5, 64\], expected \[4, 64\]: one embedding for"):
        TooMany(backbone, single_tokens)(backbone, PAIRS)


@torch.no_grad()
def test_kept_tokens_do_not_change_the_features_of_single_words(backbone, single_tokens):
    kept, plain = (SoftPrompt(backbone, single_tokens, primitives=True, keep_tokens=kept) for kept in (True, False))
    found, expected = (prompt(backbone, PAIRS) for prompt in (kept, plain))
    torch.testing.assert_close((found.attr, found.obj), (expected.attr, expected.obj))
