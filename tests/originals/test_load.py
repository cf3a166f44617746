"""Errors in checkpoints and settings of the authors, and the messages about them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import yaml

import czslkit
from czslkit.errors import ConfigError, UnknownNameError
from czslkit.options import as_dict
from czslkit.translation import IGNORED_KEYS
from czslkit.types import PairSpace


def quiet(line):
    pass


@pytest.fixture
def msci(cases):
    return next(case for case in cases if case.name == "msci_wide")


@pytest.fixture
def csp(cases):
    return next(case for case in cases if case.name == "csp_wide")


def load(case, state=None, config=None, name=None, space=None, **kwargs):
    state, config = case.state if state is None else state, case.config if config is None else config
    return czslkit.load_original(name or case.method, state, space or case.space, config, log=quiet, **kwargs)


def scores(method, case):
    with torch.no_grad():
        return method.rank(case.images, method.text(case.pairs("open")))


def test_every_tensor_that_does_not_fit_is_listed_at_once(msci):
    state = dict(msci.state)
    del state["lamda"], state["clip.visual.proj"], state["clip.ln_final.weight"]
    state |= {"foo.bar": torch.zeros(2), "clip.foo": torch.zeros(2)}
    state |= {"soft_att_obj": torch.zeros(3, 128), "clip.ln_final.bias": torch.zeros(3)}
    with pytest.raises(ConfigError) as error:
        load(msci, state)
    assert str(error.value).split("\n") == [
        "msci: these tensors of the checkpoint do not fit:",
        "foo.bar is unknown",
        "lamda is missing",
        "soft_att_obj is [3, 128], expected [9, 128]",
        "clip.foo is unknown",
        "clip.ln_final.bias is [3], expected [128]",
        "clip.ln_final.weight is missing",
        "clip.visual.proj is missing",
    ]


def test_modules_that_are_never_used_may_be_missing(msci):
    state = {k: v for k, v in msci.state.items() if not k.startswith(("cmt", "patch_norm", "fusion_module"))}
    method = load(msci, state)
    assert method.unused == ()
    assert torch.equal(scores(method, msci), scores(load(msci), msci))


def test_another_label_space_does_not_fit(csp):
    pairs = torch.tensor([[0, 0]])
    space = PairSpace(("dry",), ("cat",), pairs, torch.ones(1, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"soft_embeddings is \[9, 128\], expected \[2, 128\]"):
        load(csp, space=space)


def test_absent_modules_are_missing_tensors(msci, cases):
    state = {k: v for k, v in msci.state.items() if not k.startswith("stage1")}
    with pytest.raises(ConfigError, match=r"stage1_local_alignment\.norm\.bias is missing"):
        load(msci, state)
    troika = next(case for case in cases if case.name == "troika_wide")
    with pytest.raises(ConfigError, match=r"cmt\.0\.norm\.bias is missing"):
        load(troika, {k: v for k, v in troika.state.items() if not k.startswith("cmt")})


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("additional_visual_params.0.down_proj.weight", ()),
        ("concat_projection_low.0.weight", (0, 3)),
        ("clip.visual.positional_embedding", (0, 192)),
        ("clip.visual.conv1.weight", (3,)),
    ],
)
def test_no_shape_is_too_odd_to_be_named(msci, key, shape):
    with pytest.raises(ConfigError, match=rf"{key} is {re.escape(str(list(shape)))}, expected".replace(".", r"\.")):
        load(msci, {**msci.state, key: torch.zeros(shape)})


def test_tensors_and_settings_that_do_not_fit_are_listed_together(csp):
    state, config = {**csp.state, "foo": torch.zeros(1)}, {**csp.config, "bar": 1}
    with pytest.raises(ConfigError, match=r"(?s)csp: bar is not a setting.*these tensors.*\nfoo is unknown"):
        load(csp, state, config)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"soft_embeddings": "x"},
            r"the checkpoint is not a state dict of tensors: it contains more than tensors: 'soft_embeddings'",
        ),
        ({3: torch.zeros(1)}, "it has the key 3, expected names"),
    ],
)
def test_a_dict_that_is_no_state_dict_is_refused(csp, state, message):
    with pytest.raises(ConfigError, match=message):
        load(csp, state, backbone=csp.clip)


def test_a_wrapped_state_dict_is_the_same_from_memory_as_from_a_file(csp):
    wrapped = {"state_dict": {f"module.{key}": value for key, value in csp.state.items()}}
    assert torch.equal(scores(load(csp, wrapped), csp), scores(load(csp), csp))


def test_values_are_compared_once_they_are_read(msci):
    config = {**msci.config, "adapter_dim": 8, "layers": (1, 1), "selected_low_layers": 3}
    assert torch.equal(scores(load(msci, config=config), msci), scores(load(msci), msci))


def test_a_backbone_that_is_not_needed_is_said_to_be_unused(csp):
    said = []
    czslkit.load_original("csp", csp.state, csp.space, csp.config, backbone="demo", log=said.append)
    assert said == ["csp: the checkpoint contains a CLIP, so the argument backbone is ignored"]


def test_vectors_of_words_are_refused_by_a_method_without_them(csp):
    with pytest.raises(ConfigError, match="csp has no vectors of words: leave word_vectors out"):
        load(csp, word_vectors=lambda table, word, width: torch.zeros(width))


def test_a_feasibility_is_refused_by_a_method_whose_scores_do_not_depend_on_it(csp):
    with pytest.raises(ConfigError, match="csp has no weights by feasibility: leave feasibility out"):
        load(csp, config={**csp.config, "feasibility": [0.5]})


def test_chunks_of_texts_count_only_where_texts_come_first(msci):
    config = {**msci.config, "text_encoder_batch_size": 1024}
    assert load(msci, config=config).head.fusion.primitive_chunk == 1024
    assert load(msci, config={**config, "text_first": False}).head.fusion.primitive_chunk == 0


def test_settings_that_are_unknown_or_against_the_shapes_are_listed_at_once(msci):
    config = {**msci.config, "selected_low_layers": 2, "stage_one_num_heads": 4, "ctx_init": ["a photo of", "a cat"]}
    with pytest.raises(ConfigError) as error:
        load(msci, config=config)
    assert str(error.value).split("\n")[:3] == [
        "msci: ctx_init is ['a photo of', 'a cat'], expected the same for every branch",
        "msci: stage_one_num_heads is not a setting of the authors' program. "
        "Did you mean 'stage_2_num_heads' or 'stage_1_num_heads'?",
        "msci: low_layers is 2 in the settings, 3 by the checkpoint's shapes",
    ]


def test_the_variant_of_the_settings_must_be_the_one_asked_for(cases):
    case = next(case for case in cases if case.name == "dfsp_txt2img")
    with pytest.raises(ConfigError, match="fusion is 'txt2img', expected 'img2txt' for this method"):
        load(case, name="dfsp-i2t")


def test_settings_change_the_function(msci):
    other = load(msci, config={**msci.config, "stage_1_num_heads": 2})
    assert (scores(other, msci) - scores(load(msci), msci)).abs().max() > 1e-3
    assert (
        load(msci, config={**msci.config, "obj_loss_weight": 3.0}).loss(msci.batch, msci.pairs("train"))
        > load(msci).loss(msci.batch, msci.pairs("train")) + 1
    )


def test_our_own_settings_are_taken_too(msci):
    config = {**msci.config, "closed_score_weights": [0.1, 0.9, 0.9]}
    assert load(msci, config=config).head.fusion.closed == (0.1, 0.9, 0.9)


def test_settings_come_from_yaml_in_groups_or_flat(msci, tmp_path):
    grouped = {"model": msci.config, "seed": 0}
    (tmp_path / "grouped.yml").write_text(yaml.safe_dump(grouped))
    assert torch.equal(scores(load(msci, config=tmp_path / "grouped.yml"), msci), scores(load(msci), msci))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"bad\.yml: cannot be read as YAML"),
        ("- 1", r"bad\.yml: expected settings with their values, found list"),
        (None, r"bad\.yml: cannot be read as YAML: .*No such file"),
    ],
)
def test_a_file_that_is_no_settings_is_named(msci, tmp_path, text, message):
    if text is not None:
        (tmp_path / "bad.yml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(msci, config=tmp_path / "bad.yml")


def test_a_checkpoint_without_clip_needs_a_backbone(csp, tmp_path):
    alone = {"soft_embeddings": csp.state["soft_embeddings"]}
    with pytest.raises(ConfigError, match="csp: the checkpoint has no CLIP; pass backbone="):
        load(csp, alone)
    torch.save(csp.clip, tmp_path / "clip.pt")
    expected = scores(load(csp), csp)
    for backbone in (csp.clip, tmp_path / "clip.pt", str(tmp_path / "clip.pt")):
        assert torch.equal(scores(load(csp, alone, backbone=backbone), csp), expected)


def test_a_clip_alone_is_zero_shot_clip(cases):
    case = next(case for case in cases if case.method == "clip")
    constants = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77)}
    assert torch.equal(scores(load(case, {**case.clip, **constants}), case), scores(load(case), case))


def test_a_second_name_must_say_the_same(csp):
    state = {**csp.state, "text_encoder.ln_final.bias": csp.clip["ln_final.bias"].clone()}
    assert torch.equal(scores(load(csp, state), csp), scores(load(csp), csp))
    state["text_encoder.ln_final.bias"] += 1
    with pytest.raises(ConfigError, match=r"text_encoder\.ln_final\.bias differs from clip_model\.ln_final\.bias"):
        load(csp, state)


def test_files_arrays_and_half_precision_are_read(csp, tmp_path):
    expected = scores(load(csp), csp)
    torch.save({"state_dict": {f"module.{key}": value for key, value in csp.state.items()}}, tmp_path / "csp.pt")
    assert torch.equal(scores(load(csp, tmp_path / "csp.pt"), csp), expected)
    assert torch.equal(scores(load(csp, {k: np.asarray(v) for k, v in csp.state.items()}), csp), expected)
    half = load(csp, {k: v.half() for k, v in csp.state.items()})
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    torch.testing.assert_close(scores(half, csp), expected, atol=0.05, rtol=0)


def test_text_positions_that_were_cut_refuse_longer_sentences(cases):
    case = next(case for case in cases if case.method == "csp")
    method = load(case, case.clip, {}, name="clip")
    with pytest.raises(ValueError, match="a prompt has 9 tokens, this CLIP was cut to 8 text positions"):
        method.text(case.pairs("open"))


def test_methods_without_an_original_are_refused(csp):
    with pytest.raises(
        ConfigError, match=r"visprod: checkpoints of its authors cannot be read\. Known: .*clip, .*coop, csp"
    ):
        load(csp, name="visprod")
    with pytest.raises(UnknownNameError, match="no method named 'cps'"):
        load(csp, name="cps")


def test_settings_that_are_in_no_shape_and_not_given_are_assumed_and_logged(cases):
    said = []
    case = next(case for case in cases if case.name == "dfsp_txt2img")
    czslkit.load_original("dfsp-t2i", case.state, case.space, log=said.append)
    assert said[0] == "dfsp-t2i: fusion is not given, and shapes do not determine it; txt2img is assumed"
    msci, said = next(case for case in cases if case.name == "msci_wide"), []
    config = {**msci.config, "stage_2_num_heads": 2}
    del config["stage_1_num_heads"]
    with pytest.raises(ConfigError, match="12 attention heads do not divide the joint width 128"):
        czslkit.load_original("msci", msci.state, msci.space, config, log=said.append)
    assert said == ["msci: stage_1_num_heads is not given, and shapes do not determine it; 12 is assumed"]


def test_arguments_in_the_wrong_place_are_named(csp):
    with pytest.raises(TypeError, match="space is a dict, expected a PairSpace"):
        czslkit.load_original("csp", csp.state, csp.state)
    with pytest.raises(ConfigError, match="expected settings with their values, found list"):
        load(csp, config=["a"])


def test_it_is_ready_to_evaluate(csp):
    assert not load(csp).training


def test_passed_over_settings_are_none_that_some_method_reads(cases):
    """Check that every key of the recorded runs is read or ignored; one method may ignore a key that another reads."""
    for case in cases:
        translation = type(case.load()).translation
        read = {*translation.settings, *translation.fixed, *translation.ignored, *as_dict(type(case.load()).Options())}
        assert {key for key in case.config if key not in read} <= IGNORED_KEYS | {"adapter_dim", "adapter_dropout"}
