import pytest

from czslkit.sizes import parse_bytes


@pytest.mark.parametrize("size", ["", "GB", "4 XB", "-1GB", "4iB"])
def test_text_that_is_not_a_size_is_an_error(size: str) -> None:
    with pytest.raises(ValueError, match=f"'{size}' is not a size such as 4GB or 512MiB"):
        parse_bytes(size)


def test_a_size_below_one_byte_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'0\.1' is not more than 0 bytes"):
        parse_bytes("0.1")


def test_both_kinds_of_units_are_known() -> None:
    assert [parse_bytes(size) for size in ("2k", "2 KiB", "1.5mb", "1t")] == [2000, 2048, 1_500_000, 10**12]
