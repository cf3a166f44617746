"""The paper of DFSP, and the names of tensors and settings in the checkpoints of its authors."""

from __future__ import annotations

from czslkit.translation import State, Translation, distinct_numbers

CITATION = """
@inproceedings{lu2023dfsp,
  author = {Lu, Xiaocheng and Guo, Song and Liu, Ziming and Guo, Jingcai},
  title = {Decomposed Soft Prompt Guided Fusion Enhancing for Compositional Zero-Shot Learning},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2023}
}
"""


def _prompt_sizes(state: State) -> dict[str, int]:
    """Return the options that the shapes of a variant without fusion determine."""
    positions = state.get("clip.positional_embedding")
    return {} if positions is None else {"context_length": len(positions)}


def _fusion_sizes(state: State) -> dict[str, int]:
    """Return the options that the shapes of a variant with a fusion determine."""
    layers = distinct_numbers(state, r"fusion\.resblocks_img\.(\d+)\.")
    return ({"layers": layers} if layers else {}) | _prompt_sizes(state)


def translation_of(fusion: str) -> Translation:
    """Return the translation of the variant with the authors' name ``fusion``."""
    fuses = fusion != "OnlySPM"
    return Translation(
        names={
            r"prompt\.words": "soft_att_obj",
            r"prompt\.context\.0": "soft_prompt",
            r"interaction\.image_to_text\.(cross|refine)": r"interaction.\1_text",
            r"interaction\.text_to_image\.cross": "interaction.cross_image",
            r"interaction\.cross_(text|image)\.norm\.": r"interaction.cross_\1.ln_x.",
            r"\.norm_other\.": ".ln_y.",
            r"\.norm\.": ".ln_1.",
            r"\.norm_mlp\.": ".ln_2.",
            r"\.mlp\.0\.": ".mlp.c_fc.",
            r"\.mlp\.3\.": ".mlp.c_proj.",
            r"interaction\.image_to_text\.": "fusion.img2txt_transform_",
            r"interaction\.text_to_image\.": "fusion.txt2img_transform_",
            r"_transform_project": "_transform_layer1",
            r"_transform_place": "_transform_layer2",
            r"interaction\.cross_text": "fusion.crossblock_txt",
            r"interaction\.cross_image": "fusion.crossblock_img",
            r"interaction\.refine_text": "fusion.resblocks_txt",
            r"interaction\.refine_image": "fusion.resblocks_img",
            r"head\.compose": "fusion.txt_fine_tune",
        },
        unused=r"fusion\.((img2txt|txt2img)_transform_layer[12]|crossblock_(img|txt)|resblocks_(img|txt)\.\d+|"
        r"txt_fine_tune)\..*",
        settings={
            "attr_dropout": "word_dropout",
            "att_obj_w": "primitive_loss_weight",
            "sp_w": "soft_loss_weight",
            **({"SA_K": "layers", "res_w": "keep"} if fuses else {}),
        },
        fixed={"fusion": fusion},
        required_config=("fusion",),
        sizes=_fusion_sizes if fuses else _prompt_sizes,
    )
